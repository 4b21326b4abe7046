"""What a synthetic data set looks like: sizes, presets, scene names and splits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from streampetr_vit.errors import InputError

# Raised whenever the same config would give other files, so that old folders are recognised.
GENERATOR_VERSION = 1

FRAME_PERIOD_S = 0.5
MINI_TRAIN_SCENES = 8
MINI_VAL_SCENES = 2


@dataclass(frozen=True)
class SyntheticConfig:
    """All that the content of a synthetic data set depends on.

    Attributes:
        train_scenes: number of scenes of the training split.
        val_scenes: number of scenes of the validation split.
        frames: keyframes per scene, at 2 Hz.
        image_width: native width of the pictures in pixels.
        image_height: native height of the pictures in pixels.
        range_m: lidar range; fog closes the view from 0.8 to 1.12 of it, so that what is not
            annotated is not visible either.
        seed: seed of all random choices.
        lidar_files: whether the `.pcd.bin` files of LIDAR_TOP are written. Point counts of the
            annotations do not depend on it, and neither training nor evaluation reads the files.
        jpeg_quality: 1..100.
    """

    train_scenes: int = 40
    val_scenes: int = 4
    frames: int = 20
    image_width: int = 400
    image_height: int = 225
    range_m: float = 25.0
    seed: int = 0
    lidar_files: bool = False
    jpeg_quality: int = 85

    def __post_init__(self) -> None:
        limits = {
            "train_scenes": (1, 700),
            "val_scenes": (1, 150),
            "frames": (2, 100),
            "image_width": (64, 1600),
            "image_height": (36, 900),
            "range_m": (15.0, 60.0),
            "seed": (0, 2**32 - 1),
            "jpeg_quality": (1, 100),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} = {value} is not allowed: choose {low}..{high}")

    @property
    def is_mini(self) -> bool:
        """Whether the scenes fit into the ten names of the official mini splits."""
        return self.train_scenes <= MINI_TRAIN_SCENES and self.val_scenes <= MINI_VAL_SCENES

    @property
    def version(self) -> str:
        """Name of the table folder. The devkit allows each split only with its own suffix."""
        return "v1.0-mini" if self.is_mini else "v1.0-trainval"

    @property
    def split_names(self) -> tuple[str, str]:
        """Official names of the training and validation split that hold the scenes."""
        return ("mini_train", "mini_val") if self.is_mini else ("train", "val")

    def scene_names(self) -> tuple[list[str], list[str]]:
        """Names of the training and validation scenes, the first of the official lists.

        The devkit finds the scenes of a predefined split by name and ignores absent ones, so
        official names make its splits work on a data set of any size.
        """
        from nuscenes.utils import splits  # slow to import: pulls matplotlib

        train, val = (
            (splits.mini_train, splits.mini_val) if self.is_mini else (splits.train, splits.val)
        )
        return list(train[: self.train_scenes]), list(val[: self.val_scenes])

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        return asdict(self)


PRESETS = {
    "tiny": SyntheticConfig(train_scenes=1, val_scenes=1, frames=6),
    "quickstart": SyntheticConfig(train_scenes=40, val_scenes=4, frames=20),
    "gpu": SyntheticConfig(
        train_scenes=28,
        val_scenes=4,
        frames=40,
        image_width=800,
        image_height=450,
        range_m=51.0,
    ),
}
