"""The training job: build, check, resume, train, evaluate. The command-line tools call `train`.

`train` builds the model, the loader, the optimiser and the trainer, checks what the end of the run
will need, registers the hooks, resumes a checkpoint or loads the start weights, and then runs the
steps. Around each step the hooks act: the learning rate is set before it; the average of the
weights, checkpoint, stop, evaluation and log come after it, in this order. The trainer owns the
memory of the training streams and carries it from step to step. An evaluation owns nothing of the
training: each one makes a `Stream`, which owns the memory of inference, and drops it at its end. So
an evaluation between two steps leaves the training as it is.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from streampetr_vit.checkpoint.formats import AVERAGE
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.engine.agreement import on_all_ranks
from streampetr_vit.engine.building import build_average, build_model, note_training_set
from streampetr_vit.engine.built_hooks import (
    batch_hook,
    best_checkpoint_hook,
    checkpoint_hook,
    log_hook,
    schedule_hook,
)
from streampetr_vit.engine.checkpoint_hook import CheckpointHook
from streampetr_vit.engine.config import call
from streampetr_vit.engine.configured_hooks import configured_hooks, has_state
from streampetr_vit.engine.distributed import training_module, wait_for_main
from streampetr_vit.engine.ema_hook import AverageHook
from streampetr_vit.engine.eval_hook import PeriodicEvaluation
from streampetr_vit.engine.evaluation import Metrics, evaluate_and_report
from streampetr_vit.engine.freeze import FreezeHook, Freezing
from streampetr_vit.engine.half_precision import check_half_precision
from streampetr_vit.engine.hooks import StopHook
from streampetr_vit.engine.preflight import check_training
from streampetr_vit.engine.recipe import Recipe, build_optimizer
from streampetr_vit.engine.restarts import is_restart, note_start
from streampetr_vit.engine.resume import resume_or_start
from streampetr_vit.engine.run_folder import as_override, command_for, save_config
from streampetr_vit.engine.signals import Interrupted, SignalWatch
from streampetr_vit.engine.stream_hooks import StreamStateHook
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.errors import UserError
from streampetr_vit.solver import WeightAverage

logger = logging.getLogger(__name__)


def train(cfg: DictConfig, resume: bool = False, more_hooks: Sequence[HookBase] = ()) -> Metrics:
    """Trains, saves checkpoints and evaluates, as the configuration says.

    SIGTERM or SIGINT ends it after the current step, with a checkpoint (see `engine.signals`).

    Args:
        cfg: the whole configuration. `dataloader.train` is called with rank and world_size beside
            its own arguments. It gives an endless iterable of batches that has `state_dict`,
            `load_state_dict` and a `dataset` with a length.
        resume: continue from the last checkpoint of train.output_dir, if there is one. A restart by
            torchrun does so anyway (see `engine.restarts`).
        more_hooks: of detectron2's kind, beside those of train.hooks and after them. Those with a
            state act before the checkpoint of a step, the others after its evaluation.

    Returns:
        Metrics of the evaluation at the end, on rank 0; empty on other ranks.

    Raises:
        InputError: settings that do not go together, or not with the checkpoint.
        CheckpointError: weights or checkpoint are missing or do not fit.
        NonFiniteTrainingError: too many steps in a row were not finite.
        UserError: what `check_training` finds.
        Interrupted: a signal ended it.
    """
    with SignalWatch() as watch:
        try:
            return _train(cfg, resume, more_hooks, watch)
        except Interrupted as stop:
            if stop.advice:
                logger.warning(stop.advice)  # the last line that is seen
            raise


def _train(
    cfg: DictConfig, resume: bool, more_hooks: Sequence[HookBase], watch: SignalWatch
) -> Metrics:
    added = [*on_all_ranks(lambda: configured_hooks(cfg)), *more_hooks]
    model = build_model(cfg)
    freezing = Freezing(model, cfg.train.get("freeze") or ())  # an older config.yaml lacks it
    check_half_precision(model, cfg.train.precision)
    loader = call(cfg.dataloader.train, rank=comm.get_rank(), world_size=comm.get_world_size())
    note_training_set(model, loader.dataset)
    recipe = Recipe.of(cfg, len(loader.dataset), comm.get_world_size())
    optimizer = build_optimizer(cfg.optimizer, model, recipe.lr_factor)
    freezing.at(0)  # the optimiser has them all: their training will begin
    wrap = functools.partial(training_module, model, **cfg.train.ddp)
    trainer = StreamingTrainer(
        wrap(),
        optimizer,
        loader,
        precision=cfg.train.precision,
        clip_grad_norm=cfg.train.clip_grad_norm,
        max_consecutive_skips=cfg.train.max_consecutive_skips,
        accumulate=recipe.accumulate,
        seed=cfg.train.seed,
        empty_memory=_empty_memory(model, recipe.lanes_per_rank),
        stop_asked=lambda: watch.received is not None,
    )
    check_training(cfg, model, optimizer, recipe)
    average = build_average(cfg, model)
    checkpointer = _checkpointer(cfg, model, trainer, average)
    checkpoints = checkpoint_hook(cfg, recipe, checkpointer)
    best = best_checkpoint_hook(cfg, checkpoints)
    batch, streams = batch_hook(cfg, recipe), StreamStateHook(loader)
    results: Metrics = {}

    def evaluate_now() -> Metrics:
        results.clear()
        results.update(_evaluate(cfg, model, average, checkpoints, watch))
        if best is not None:
            best.judge(results)
        return results

    # A checkpoint restores the state of the hooks that are there when it is loaded.
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            schedule_hook(cfg, trainer, batch),
            FreezeHook(freezing, wrap),
            streams,
            batch,
            # Before the checkpoint, which then has their state after this step.
            *(hook for hook in added if has_state(hook)),
            None if average is None else AverageHook(average),
            checkpoints,
            StopHook(watch, checkpoints, f"To go on: {command_for(cfg, '--resume')}"),
            PeriodicEvaluation(cfg.train.eval_period, evaluate_now, cfg.train.output_dir),
            best,
            *(hook for hook in added if not has_state(hook)),
        ]
    )
    logger.info(recipe.describe(cfg, model, optimizer, freezing, average))
    recipe.warn_of_warmup(cfg.schedule)
    resume = is_restart(cfg.train.output_dir) or resume
    start_iter = resume_or_start(cfg, trainer, checkpointer, batch, streams, resume)
    note_start(cfg.train.output_dir)
    save_config(cfg, cfg.train.output_dir)
    # Last: its writers open metrics.json, which had to be moved aside first, and they write what
    # the other hooks have put into the step's scalars.
    max_iter = batch.clock.max_iter  # a resume with another batch changes it
    trainer.register_hooks([log_hook(cfg, max_iter)])
    trainer.train(start_iter, max_iter)
    return results


def _evaluate(
    cfg: DictConfig,
    model: nn.Module,
    average: WeightAverage | None,
    checkpoints: CheckpointHook,
    watch: SignalWatch,
) -> Metrics:
    """Evaluates; where that fails or is interrupted, the steps so far are saved first."""
    # Now: after a failure the other ranks may be somewhere else, or gone.
    checkpoints.gather()
    try:
        # Inside: a signal that came after `StopHook` looked ends the program here.
        with watch.at_once():
            results = evaluate_and_report(cfg, model, average)
            wait_for_main()  # rank 0 scores and reports alone
        return results
    except BaseException as error:
        path = checkpoints.save_now()
        if isinstance(error, Interrupted):
            what = "evaluation interrupted; the training so far is saved"
            error.advice = f"{what}. To go on: {command_for(cfg, '--resume')}"
        if not isinstance(error, Exception):
            raise
        folder = cfg.train.output_dir
        file = path or os.path.join(folder, "model_final.pth")
        weights = as_override("train.init_checkpoint", file)
        advice = (
            "the training so far is saved. To evaluate it again: "
            f"{command_for(cfg, '--eval-only')} {weights}"
        )
        if isinstance(error, UserError):
            raise type(error)(f"evaluation failed: {error}; {advice}") from error
        logger.error("evaluation failed; %s", advice)
        raise


def _checkpointer(
    cfg: DictConfig, model: nn.Module, trainer: StreamingTrainer, average: WeightAverage | None
) -> SafeCheckpointer:
    return SafeCheckpointer(
        model,  # not the wrapped one: names in the file carry no "module." prefix
        cfg.train.output_dir,
        trainer=trainer,
        **({} if average is None else {AVERAGE: average}),
        optional=[AVERAGE],  # a run without may be resumed with one
        weights=cfg.train.get("init_weights", "model"),  # an older config.yaml lacks it
        allow_wrong_shape=cfg.train.init_allow_wrong_shape,
        allow_partial=cfg.train.get("init_allow_partial", False),  # an older config.yaml lacks it
    )


def _empty_memory(model: nn.Module, lanes: int) -> Callable[[], Any] | None:
    """What makes the memory of this rank's lanes, if the model knows how."""
    make = getattr(model, "empty_memory", None)
    return None if make is None else functools.partial(make, lanes)
