"""The model of a configuration on this process's device, and the average of its weights."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig
from torch import nn

from streampetr_vit.checkpoint.settings import FRAME_PERIOD, REFERENCE_TO_VEHICLE
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.nuscenes.typical import usual_period_s, usual_reference
from streampetr_vit.engine.compile import compile_parts
from streampetr_vit.engine.config import check_settings, instantiate_model
from streampetr_vit.engine.distributed import resolve_device
from streampetr_vit.solver import WeightAverage

logger = logging.getLogger(__name__)


def build_model(cfg: DictConfig) -> nn.Module:
    """Builds the model on this process's device and compiles the parts that train.compile names.

    Raises:
        InputError: settings that do not go together, see `instantiate_model`.
    """
    check_settings(cfg)  # `load_config` could not see what a caller has changed since
    model = instantiate_model(cfg).to(resolve_device(cfg.train.device))
    counts = {name: sum(p.numel() for p in m.parameters()) for name, m in model.named_children()}
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in counts.items() if count)
    logger.info("%s: parameters %s", type(model).__name__, parts)
    compile_parts(model, **(cfg.train.get("compile") or {}))  # an older config.yaml lacks it
    return model


def build_average(cfg: DictConfig, model: nn.Module) -> WeightAverage | None:
    """The average of a model's weights that train.ema asks for; None without it."""
    settings = cfg.train.get("ema")  # an older config.yaml lacks it
    return None if settings is None else WeightAverage(model, **settings)


def note_training_set(model: nn.Module, dataset: Any) -> None:
    """Notes on a model, for its checkpoints, the frame and the rate of what it is trained on.

    Args:
        model: which has no use for it; inference on other cars has.
        dataset: of the training loader; one without `FrameRecords` tells nothing.
    """
    records = getattr(dataset, "records", None)
    if isinstance(records, FrameRecords):
        setattr(model, REFERENCE_TO_VEHICLE, usual_reference(records))
        setattr(model, FRAME_PERIOD, usual_period_s(records))
