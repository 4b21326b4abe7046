"""What a synthetic data set looks like: sizes, rig, names, presets, scene names and splits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from synthetic_nuscenes.categories import CATEGORY_NAMES
from synthetic_nuscenes.errors import ConfigError
from synthetic_nuscenes.rig import CAMERA_NAMES, LIDAR_CHANNEL, CameraSpec

# Raised whenever the same config would give other files, so that old folders are recognised.
GENERATOR_VERSION = 1

FRAME_PERIOD_S = 0.5
MINI_TRAIN_SCENES = 8
MINI_VAL_SCENES = 2

LIMITS = {
    "train_scenes": (1, 700),
    "val_scenes": (1, 150),
    "frames": (2, 100),
    "image_width": (64, 1600),
    "image_height": (36, 900),
    "range_m": (15.0, 60.0),
    "seed": (0, 2**32 - 1),
    "jpeg_quality": (1, 100),
}
FOV_LIMITS_DEG = (20.0, 120.0)
# Fields in which a set differs from nuScenes, with the values of nuScenes as JSON has them.
NUSCENES_FIELDS: dict[str, Any] = {
    "cameras": [],
    "category_names": {},
    "lidar": True,
    "own_version": "",
}
# Folders of the data root, and versions that the devkit ties to its own splits.
_TAKEN_VERSIONS = ("samples", "sweeps", "maps", "parts", "v1.0-mini", "v1.0-trainval", "v1.0-test")


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
        cameras: another rig in place of nuScenes's six cameras; `image_width` and `image_height`
            are not used then.
        category_names: own names for some of `CATEGORY_NAMES`; two may share a name.
        lidar: whether the car has LIDAR_TOP. Without it, `num_lidar_pts` is the number of pixels,
            in all cameras at half size, that show the object, and what no camera shows is not
            annotated. A rig that does not look all around may miss whole classes in a scene.
        own_version: name of the table folder. The scenes then have own names too, and
            `splits.json` has them as "train" and "val".
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
    cameras: tuple[CameraSpec, ...] = ()
    category_names: Mapping[str, str] = field(default_factory=dict)
    lidar: bool = True
    own_version: str = ""

    def __post_init__(self) -> None:
        for name, limits in LIMITS.items():
            _check_range(name, getattr(self, name), limits)
        for camera in self.cameras:
            width, height = camera.size_px
            _check_range(f"width of camera {camera.name!r}", width, LIMITS["image_width"])
            _check_range(f"height of camera {camera.name!r}", height, LIMITS["image_height"])
            _check_range(f"fov_deg of camera {camera.name!r}", camera.fov_deg, FOV_LIMITS_DEG)
            _check_name("camera name", camera.name, (LIDAR_CHANNEL,))
        if len(set(self.camera_names)) < len(self.camera_names):
            raise ConfigError(f"cameras = {self.camera_names}: give each its own name")
        unknown = sorted(set(self.category_names) - set(CATEGORY_NAMES))
        if unknown:
            raise ConfigError(
                f"category_names: {unknown} are not allowed; choose from {list(CATEGORY_NAMES)}"
            )
        if self.lidar_files and not self.lidar:
            raise ConfigError("lidar_files = True needs lidar = True; turn one of them round")
        if self.own_version:
            _check_name("own_version", self.own_version, _TAKEN_VERSIONS)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Channels of the cameras, in the order of the tables."""
        return tuple(camera.name for camera in self.cameras) or CAMERA_NAMES

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of all sensors."""
        return (*self.camera_names, LIDAR_CHANNEL) if self.lidar else self.camera_names

    def category_name(self, name: str) -> str:
        """The data set's name for one of `CATEGORY_NAMES`."""
        return self.category_names.get(name, name)

    @property
    def is_mini(self) -> bool:
        """Whether the scenes fit into the ten names of the official mini splits."""
        return self.train_scenes <= MINI_TRAIN_SCENES and self.val_scenes <= MINI_VAL_SCENES

    @property
    def version(self) -> str:
        """Name of the table folder."""
        # The devkit allows each of its splits only with the split's own suffix.
        return self.own_version or ("v1.0-mini" if self.is_mini else "v1.0-trainval")

    @property
    def split_names(self) -> tuple[str, str]:
        """Names of the training and validation split: official ones, or those of `own_version`."""
        use_mini = self.is_mini and not self.own_version
        return ("mini_train", "mini_val") if use_mini else ("train", "val")

    def scene_names(self) -> tuple[list[str], list[str]]:
        """Names of the training and validation scenes.

        They are the first of the official lists: the devkit finds the scenes of a predefined split
        by name and ignores absent ones, so official names make its splits work on a data set of any
        size. With `own_version` they are own names.
        """
        if self.own_version:
            names = [f"drive-{i:04d}" for i in range(self.train_scenes + self.val_scenes)]
            return names[: self.train_scenes], names[self.train_scenes :]
        from nuscenes.utils import splits  # slow to import: pulls matplotlib

        train, val = (
            (splits.mini_train, splits.mini_val) if self.is_mini else (splits.train, splits.val)
        )
        return list(train[: self.train_scenes]), list(val[: self.val_scenes])

    def splits(self) -> dict[str, list[str]]:
        """Content of `splits.json`."""
        # A predefined split wins over one of splits.json, so official versions need other names.
        names = self.split_names if self.own_version else ("synth_train", "synth_val")
        return dict(zip(names, self.scene_names(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The config as plain JSON values, without the fields that are as in nuScenes."""
        values = json.loads(json.dumps(asdict(self)))
        # Left out, so that folders made before these fields existed are recognised.
        return {n: v for n, v in values.items() if NUSCENES_FIELDS.get(n) != v}


def _check_range(name: str, value: float, limits: tuple[float, float]) -> None:
    low, high = limits
    if not low <= value <= high:
        raise ConfigError(f"{name} = {value} is not allowed: choose {low}..{high}")


def _check_name(what: str, name: str, taken: tuple[str, ...]) -> None:
    """Names become folders: they must not lead out of the data root."""
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII) or name in taken:
        raise ConfigError(
            f"{what} {name!r} is not allowed: choose letters, digits, '_', '-' and '.', "
            f"not starting with '-' or '.', and none of {list(taken)}"
        )


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
