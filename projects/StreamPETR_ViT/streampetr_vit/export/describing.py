"""What an export says of itself, from the detector and what belongs to it."""

from __future__ import annotations

import importlib.metadata
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from streampetr_vit.checkpoint.manifest import recorded_digest
from streampetr_vit.export.description import Description
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import DatasetSpec, Pose

_ROOT = Path(__file__).resolve().parents[4]  # of the checkout, if it is one


@dataclass(frozen=True)
class Origin:
    """Where the weights of an export come from.

    Attributes:
        recipe: name of the configuration.
        weights, weights_sha256: name and checksum of the file.
        ema: whether the moving average of the weights was taken, which the same file holds.
    """

    recipe: str
    weights: str
    weights_sha256: str
    ema: bool

    @staticmethod
    def of_files(config: Path, weights: Path, ema: bool) -> Origin:
        """Of the files of a configuration and of weights, which loading has found whole."""
        config = config.expanduser().resolve()
        return Origin(
            # A run's is always config.yaml: its folder says more.
            recipe=config.parent.name if config.name == "config.yaml" else config.stem,
            weights=weights.name,
            weights_sha256=recorded_digest(weights),
            ema=ema,
        )


def describe(
    detector: StreamPETR,
    spec: DatasetSpec,
    image_size: tuple[int, int],
    lidar_to_vehicle: Pose,
    frame_period_s: float,
    remembers: bool,
    origin: Origin,
    frame: str,
    precision: str,
) -> Description:
    """The description of an export.

    Args:
        detector: with its weights.
        spec: its classes and cameras.
        image_size: (height, width) in pixels that pictures are brought to.
        lidar_to_vehicle: pose on the vehicle of the frame that boxes and memory live in.
        frame_period_s, remembers, frame, precision: see `Description`.
    """
    head = detector.head
    height, width = image_size
    return Description(
        recipe=origin.recipe,
        weights=f"{origin.weights} (moving average)" if origin.ema else origin.weights,
        weights_sha256=origin.weights_sha256,
        detector=type(head).__name__,
        classes=tuple(spec.class_names),
        cameras=tuple(spec.cameras),
        image_size=(int(height), int(width)),
        pixel_mean=_numbers(detector.pixel_mean),
        pixel_std=_numbers(detector.pixel_std),
        input_format=detector.input_format,
        frame=frame,
        lidar_to_base_link=tuple(map(tuple, lidar_to_vehicle.matrix().tolist())),
        precision=precision,
        center_range=_numbers(head.center_range),
        max_detections=head.max_detections,
        score_threshold=head.score_threshold,
        num_queries=head.num_queries,
        num_remembered=head.num_remembered,
        frame_period_s=frame_period_s,
        remembers=remembers,
        program=_program(),
    )


def _numbers(values: Tensor) -> tuple[float, ...]:
    """As a configuration has them: 123.675, and not all digits of the nearest float32."""
    return tuple(float(str(np.float32(value))) for value in values.flatten().tolist())


def _program() -> str:
    """Name, version, and commit where this runs from a checkout."""
    try:
        name = f"streampetr_vit {importlib.metadata.version('streampetr_vit')}"
    except importlib.metadata.PackageNotFoundError:  # run from its folder
        name = "streampetr_vit"
    commit = _git("rev-parse", "HEAD") if (_ROOT / ".git").exists() else None
    if commit is None:
        return name
    altered = ", with changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{name}, commit {commit}{altered}"


def _git(*words: str) -> str | None:
    """What git answers about the checkout; None if it cannot."""
    try:
        done = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True)
    except OSError:  # it is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
