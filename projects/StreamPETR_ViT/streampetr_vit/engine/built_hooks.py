"""Makes the hooks of the training loop from a configuration."""

from __future__ import annotations

import functools
import os

from detectron2.engine import default_writers
from detectron2.utils import comm
from omegaconf import DictConfig

from streampetr_vit.checkpoint.formats import AVERAGE
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.engine.best_checkpoint import BestCheckpointHook
from streampetr_vit.engine.checkpoint_hook import CheckpointHook
from streampetr_vit.engine.evaluators import evaluator_parts
from streampetr_vit.engine.hooks import LogHook, ScheduleHook
from streampetr_vit.engine.recipe import Recipe
from streampetr_vit.engine.run_folder import end_last_line
from streampetr_vit.engine.stream_hooks import BatchHook
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.errors import InputError
from streampetr_vit.solver import warmup_cosine


def batch_hook(cfg: DictConfig, recipe: Recipe) -> BatchHook:
    """Compares the batch with that of a checkpoint, and has the clock of the run."""
    restarts = cfg.train.get("restart_streams", False)  # an older config.yaml lacks it
    return BatchHook(recipe.lanes, recipe.accumulate, recipe.clock, restarts)


def schedule_hook(cfg: DictConfig, trainer: StreamingTrainer, batch: BatchHook) -> ScheduleHook:
    """Sets the learning rates by the clock of the run."""
    settings = {key: cfg.schedule[key] for key in ("warmup_iters", "warmup_factor", "end_factor")}
    schedule = functools.partial(warmup_cosine, **settings)
    return ScheduleHook(
        schedule,
        trainer.optimizer,
        cfg.train.max_seconds,
        progress=lambda iteration: batch.clock.progress(iteration),  # a resume sets its clock
    )


def checkpoint_hook(
    cfg: DictConfig, recipe: Recipe, checkpointer: SafeCheckpointer
) -> CheckpointHook:
    """Saves every train.checkpointer.period steps, or every epoch."""
    options = dict(cfg.train.checkpointer)
    options["period"] = options["period"] or recipe.epoch_iters
    return CheckpointHook(checkpointer, **options)


def best_checkpoint_hook(cfg: DictConfig, checkpoints: CheckpointHook) -> BestCheckpointHook | None:
    """Keeps the best checkpoint; None if none is asked for."""
    settings = cfg.train.get("best_checkpoint")  # an older config.yaml lacks it
    if settings is None:
        return None
    if not evaluator_parts(cfg):
        raise InputError(
            "train.best_checkpoint needs an evaluation, and dataloader.evaluator is null: set one, "
            "or set train.best_checkpoint=null"
        )
    if settings.metric.partition("/")[0].endswith(f"_{AVERAGE}") and cfg.train.get("ema") is None:
        raise InputError(
            f"train.best_checkpoint.metric={settings.metric!r} is of the average of the weights, "
            "and train.ema is null: set train.ema={}, or name the metric of the weights"
        )
    return BestCheckpointHook(checkpoints, **settings)


def log_hook(cfg: DictConfig, max_iter: int) -> LogHook | None:
    """Writes the curves, on rank 0; None on others."""
    if not comm.is_main_process():
        return None
    # With a limit of time, the writer's estimate of the remaining time would be wrong: it counts
    # iterations. None leaves it out.
    expected_iters = None if cfg.train.max_seconds else max_iter
    end_last_line(os.path.join(cfg.train.output_dir, "metrics.json"))
    writers = default_writers(cfg.train.output_dir, expected_iters)
    return LogHook(cfg.train.output_dir, writers, cfg.train.log_period)
