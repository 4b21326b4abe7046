"""A trained detector from a run's folder, or from a configuration and a file with weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.checkpoint.formats import AVERAGE
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.checkpoint.manifest import recorded_digest
from streampetr_vit.checkpoint.settings import FRAME_PERIOD, REFERENCE_TO_VEHICLE
from streampetr_vit.configuration.reading import read_config
from streampetr_vit.data.nuscenes.spec import (
    NUSCENES,
    NUSCENES_FRAME_PERIOD_S,
    NUSCENES_LIDAR_TO_VEHICLE,
)
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.errors import InputError, one_line
from streampetr_vit.inference.detector import Detector
from streampetr_vit.inference.device import device_of, precision_of
from streampetr_vit.inference.recipe_parts import (
    detector_of,
    identity_of,
    image_aug_of,
    leave_out_training,
    spec_of,
)
from streampetr_vit.inference.run_files import (
    StrPath,
    check_whole,
    chosen_weights,
    config_of_run,
    weights_of_run,
)
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import DatasetSpec, Pose

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedDetector:
    """A detector with its weights, and what is needed to use it.

    Attributes:
        detector: in evaluation mode, on its device.
        image_aug: how pictures reach the input size.
        spec: the classes of its channels; cameras and lidar of its training.
        reference_to_vehicle: pose on the vehicle of the frame that boxes and memory live in.
        frame_period_s: time between the frames that the memory was trained on.
        precision: a key of `modeling.ops.precision.DTYPES`, to call it in.
        memory: whether it remembers, see `model.memory_at_test`.
        weights: path of their file.
        identity: a checksum of all that decides about results: weights, model, classes, pictures
            and precision.
    """

    detector: Detector
    image_aug: ImageAugmentation
    spec: DatasetSpec
    reference_to_vehicle: Pose
    frame_period_s: float
    precision: str
    memory: bool
    weights: str
    identity: str


def load_detector(
    run: StrPath | None = None,
    *,
    config: StrPath | DictConfig | None = None,
    weights: StrPath | None = None,
    device: str | torch.device = "auto",
    precision: str = "auto",
    ema: bool = False,
    trusted: Sequence[str] = (),
) -> LoadedDetector:
    """Builds a detector and loads its weights. Parts for training alone are left out.

    Args:
        run: folder of a training, whose config.yaml and last checkpoint are taken.
        config: a recipe (.py, which is code) or a .yaml file, or what was read from one; instead
            of `run`, with `weights`.
        weights: a file of weights. With `run` another one than the last; a name alone is looked
            for in that folder first.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        precision: "float32", "bf16" or "fp16"; or "auto", bf16 on a GPU that has it, else float32.
        ema: take the moving average of the weights, which the file holds beside them.
        trusted: packages that a YAML file may call beside those that recipes use.

    Raises:
        InputError: arguments that do not go together, a device or a precision that is not there,
            or a configuration of something else than a StreamPETR detector.
        MissingFileError, ConfigError: there is no such run or file, or it cannot be read.
        CheckpointError: weights are missing, damaged or of another model.
    """
    on = device_of(device)
    precision = precision_of(precision, on)
    cfg, path = _sources(run, config, weights, trusted)
    try:
        leave_out_training(cfg)
        image_aug, spec, model = image_aug_of(cfg), spec_of(cfg), detector_of(cfg)
        which = AVERAGE if ema else "model"
        left_out = () if model.image_head is not None else ("image_head.",)
        checkpointer = SafeCheckpointer(model, require_all=True, weights=which, leave_out=left_out)
        checkpointer.load(str(path), checkpointables=[])
        reference, period = _of_training_set(model, spec, path)
        return LoadedDetector(
            model.eval().to(on),
            image_aug,
            spec,
            reference,
            period,
            precision,
            memory=bool(cfg.model.get("memory_at_test", True)),
            weights=str(path),
            identity=_identity(path, ema, precision, cfg),
        )
    except OmegaConfBaseException as error:
        raise InputError(f"the configuration cannot be used: {one_line(error)}") from error


def _sources(
    run: StrPath | None,
    config: StrPath | DictConfig | None,
    weights: StrPath | None,
    trusted: Sequence[str],
) -> tuple[DictConfig, Path]:
    """A copy of the configuration, and the file of the weights, which is as it was written."""
    if (run is None) == (config is None):
        given = "run and config" if run is not None else "neither run nor config"
        raise InputError(
            f"{given}: give the folder of a training as run, or else a configuration as config and "
            "a checkpoint as weights"
        )
    if run is None and weights is None:
        raise InputError("config without weights: name a checkpoint as weights")
    if run is not None:
        config = config_of_run(run)
    path = weights_of_run(run) if weights is None else chosen_weights(weights, run)
    check_whole(path)
    if isinstance(config, DictConfig):
        return copy.deepcopy(config), path
    return read_config(str(config), trusted), path


def _of_training_set(model: StreamPETR, spec: DatasetSpec, path: Path) -> tuple[Pose, float]:
    """Frame and rate that the weights were trained for; of nuScenes where nothing says them."""
    row = getattr(model, REFERENCE_TO_VEHICLE, spec.lidar_to_ego)
    period = getattr(model, FRAME_PERIOD, None)
    unknown = {REFERENCE_TO_VEHICLE: row, FRAME_PERIOD: period}
    names = [name for name, value in unknown.items() if value is None]
    if names:
        level = logging.INFO if spec.cameras == NUSCENES.cameras else logging.WARNING
        logger.log(level, "%s does not record %s: those of nuScenes", path, " and ".join(names))
    row = NUSCENES_LIDAR_TO_VEHICLE if row is None else row
    return Pose.of_row(row), NUSCENES_FRAME_PERIOD_S if period is None else period


def _identity(path: Path, ema: bool, precision: str, cfg: DictConfig) -> str:
    model = OmegaConf.to_container(cfg.model, resolve=True)
    parts = {
        "weights": recorded_digest(path),
        "ema": ema,
        "precision": precision,
        "model": model,
    }
    return identity_of(cfg, parts)
