"""The evaluators of a configuration: `dataloader.evaluator` is one, or a list, or null."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from streampetr_vit.configuration.arguments import target_of
from streampetr_vit.configuration.described import call
from streampetr_vit.errors import ConfigError
from streampetr_vit.evaluation import NuScenesTrackingEvaluator
from streampetr_vit.tracking.tracker import Tracker


def evaluator_parts(cfg: DictConfig) -> list[DictConfig]:
    """The descriptions of the evaluators, in their order; empty without any."""
    parts = cfg.dataloader.get("evaluator")
    return list(parts) if isinstance(parts, ListConfig) else [] if parts is None else [parts]


def main_part(cfg: DictConfig) -> DictConfig:
    """The evaluator whose numbers and pictures a report shows: the first that is not of tracks."""
    parts = evaluator_parts(cfg)
    return next((part for part in parts if not is_tracking(part)), parts[0])


def results_folder(cfg: DictConfig) -> str:
    """Where the evaluator of `main_part` puts its files."""
    return main_part(cfg).output_dir


def tracking_folders(cfg: DictConfig) -> dict[str, Path]:
    """Name -> folder of the files of each evaluator of tracks."""
    parts = (part for part in evaluator_parts(cfg) if is_tracking(part))
    evaluators = (call(part) for part in parts)
    return {evaluator.name: evaluator.results_path.parent for evaluator in evaluators}


def build_evaluators(parts: Sequence[DictConfig], output_dir: str | None = None) -> list[Any]:
    """The evaluators of descriptions.

    Args:
        parts: of `evaluator_parts`.
        output_dir: folder of their files instead of their own.
    """
    place = {} if output_dir is None else {"output_dir": output_dir}
    return [call(part, **place) for part in parts]


def stream_tracker(evaluators: Sequence[Any]) -> Tracker | None:
    """The tracker that must be at work while the test set runs; None if none must be.

    Raises:
        ConfigError: two evaluators need one.
    """
    found = [getattr(evaluator, "stream_tracker", None) for evaluator in evaluators]
    trackers = [tracker for tracker in found if tracker is not None]
    if len(trackers) > 1:
        raise ConfigError(
            f"dataloader.evaluator has {len(trackers)} trackers that give ids to the network's "
            "memory, which can carry those of one: evaluate the others in a run of their own "
            "(--eval-only)"
        )
    return trackers[0] if trackers else None


def is_tracking(part: DictConfig) -> bool:
    """Whether an evaluator is one of tracks."""
    target = target_of(part)
    return isinstance(target, type) and issubclass(target, NuScenesTrackingEvaluator)
