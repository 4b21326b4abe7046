"""The whole job: set up, train, evaluate. The command-line tools call these functions.

`train` builds the model, the loader, the optimiser and the trainer, registers the hooks, resumes a
checkpoint or loads the start weights, and then runs the steps. Around each step the hooks act: the
learning rate is set before it; checkpoint, evaluation and log come after it, in this order. The
trainer owns the memory of the training streams and carries it from step to step. An evaluation owns
nothing of the training: each one makes a `Stream`, which owns the memory of inference, and drops it
at its end. So an evaluation between two steps leaves the training as it is.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase, default_setup, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from streampetr_vit.checkpoint.loading import CheckpointError, SafeCheckpointer
from streampetr_vit.engine.compile import compile_parts
from streampetr_vit.engine.config import call, check_settings, instantiate_model
from streampetr_vit.engine.distributed import resolve_device, training_module
from streampetr_vit.engine.half_precision import check_half_precisions
from streampetr_vit.engine.hooks import BatchHook, CheckpointHook, ScheduleHook, StreamStateHook
from streampetr_vit.engine.recipe import Recipe, build_optimizer
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.inference import Stream
from streampetr_vit.logs import forget_logged
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.precision import autocast
from streampetr_vit.modeling.training_window import evaluation_mode
from streampetr_vit.report.from_run import MEMORY_OFF, MEMORY_ON, report_from_run
from streampetr_vit.report.page import write_report
from streampetr_vit.solver import warmup_cosine

logger = logging.getLogger(__name__)

Metrics = dict[str, Any]


def setup(cfg: DictConfig, args: argparse.Namespace | None = None) -> None:
    """Sets up this process: output folder, log files, config.yaml, seeds and threads.

    Args:
        cfg: the whole configuration.
        args: the command line, for the log; None when called from Python.
    """
    check_settings(cfg)  # before a file is touched; `load_config` could not see later changes
    args = args or argparse.Namespace(config_file="", eval_only=False)
    forget_logged()  # two runs of one program have a log each
    default_setup(cfg, args)
    # detectron2 sets up loggers for itself and fvcore, not for this package.
    setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="streampetr_vit")
    if cfg.train.num_threads is not None:
        torch.set_num_threads(cfg.train.num_threads)


def build_model(cfg: DictConfig) -> nn.Module:
    """Builds the model on this process's device and compiles the parts that train.compile names.

    Raises:
        InputError: settings that do not go together, see `instantiate_model`.
    """
    check_settings(cfg)
    model = instantiate_model(cfg).to(resolve_device(cfg.train.device))
    counts = {name: sum(p.numel() for p in m.parameters()) for name, m in model.named_children()}
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in counts.items() if count)
    logger.info("%s: parameters %s", type(model).__name__, parts)
    compile_parts(model, **(cfg.train.get("compile") or {}))  # an older config.yaml lacks it
    return model


def evaluate(
    cfg: DictConfig, model: nn.Module, output_dir: str | None = None, memory: bool | None = None
) -> Metrics:
    """Runs the test set through a model and returns the evaluator's metrics.

    Args:
        cfg: the whole configuration.
        model: with its weights, not wrapped for distribution. A `StreamPETR` runs in a new
            `Stream`; any other model is called with batches, as detectron2 does.
        output_dir: folder for the results; None for dataloader.evaluator.output_dir.
        memory: False turns the temporal memory off: every frame is a stream of its own. None does
            as model.memory_at_test says.

    Returns:
        {task: {metric: value}} on rank 0, empty on other ranks.
    """
    if cfg.dataloader.get("evaluator") is None:
        logger.warning("the configuration has no dataloader.evaluator: nothing is evaluated")
        return {}
    loader = call(cfg.dataloader.test, rank=comm.get_rank(), world_size=comm.get_world_size())
    folder = output_dir or cfg.dataloader.evaluator.output_dir
    evaluator = call(cfg.dataloader.evaluator, output_dir=folder)
    if memory is None:
        memory = _remembers(cfg)
    with evaluation_mode(model):
        run = _inference(model, cfg.train.eval_precision, memory)
        results = inference_on_dataset(run, loader, evaluator)
    if comm.is_main_process() and results:
        print_csv_format(results)
    return results or {}


def _remembers(cfg: DictConfig) -> bool:
    """Whether the configuration evaluates with the temporal memory; other models have no key."""
    return cfg.model.get("memory_at_test", True)


def _inference(model: nn.Module, precision: str, memory: bool) -> Callable[[Any], Any]:
    """The function that detectron2's evaluation loop calls with each batch."""
    # Autocast is set here and not around the loop: with num_workers=0 the loader prepares samples
    # in this process, and they must stay float32.
    if isinstance(model, StreamPETR):
        stream = Stream(model, precision, memory=memory)
        return lambda batch: [{"detections": found} for found in stream(batch)]
    device_type = next(model.parameters()).device.type

    def run(batch: Any) -> Any:
        with autocast(precision, device_type):
            return model(batch)

    return run


def evaluate_and_report(cfg: DictConfig, model: nn.Module) -> Metrics:
    """Evaluates as `evaluate` does, and writes report.html if the configuration has a report.

    With report.memory_off the test set runs a second time, for comparison: without the temporal
    memory. The metrics returned are those of the first time.
    """
    memory = _remembers(cfg)
    results = evaluate(cfg, model, memory=memory)
    if cfg.get("report") is None:
        return results
    other_runs: dict[str, Path] = {}
    if cfg.report.memory_off and memory:
        # A folder of its own: the evaluator would overwrite the results with memory.
        folder = os.path.join(cfg.train.output_dir, "inference_memory_off")
        evaluate(cfg, model, folder, memory=False)
        other_runs[MEMORY_OFF] = Path(folder)
    if comm.is_main_process() and results:
        report = report_from_run(
            cfg.train.output_dir,
            cfg.dataloader.test.dataset,
            cfg.report.title,
            spec=instantiate(cfg.dataset_spec),
            notes=[*cfg.report.notes, *_differences_from_published(cfg)],
            main_run=MEMORY_ON if memory else MEMORY_OFF,
            other_runs=other_runs,
            range_m=cfg.report.range_m,
        )
        logger.info("wrote %s", write_report(cfg.train.output_dir, report))
    return results


def _differences_from_published(cfg: DictConfig) -> list[str]:
    """What in the configuration is not the published model, so that no report hides it."""
    sigma = cfg.model.head.get("prior_sigma_cells")
    if not sigma:
        return []
    return [
        f"A geometric prior is on (model.head.prior_sigma_cells={sigma:g}): every query looks "
        "first where its reference point projects. It is not part of the published model."
    ]


def evaluate_only(cfg: DictConfig, resume: bool = False) -> Metrics:
    """Evaluates the weights of train.init_checkpoint.

    Args:
        cfg: the whole configuration.
        resume: evaluate the last checkpoint of train.output_dir instead, if there is one.

    Raises:
        CheckpointError: no checkpoint, or one that is not a whole detector.
        InputError: settings that do not go together, see `instantiate_model`.
    """
    model = build_model(cfg)
    # require_all: a backbone file would load, and its random head would give mAP 0.
    checkpointer = SafeCheckpointer(model, cfg.train.output_dir, require_all=True)
    last = checkpointer.get_checkpoint_file() if resume else ""
    path = last or cfg.train.init_checkpoint
    if not path:
        raise CheckpointError(
            "--eval-only has no weights: train.init_checkpoint is empty, and there is no last "
            f"checkpoint to take. Pass train.init_checkpoint=FILE; or pass --resume, with a run's "
            f"folder as train.output_dir (now {cfg.train.output_dir!r})"
        )
    checkpointer.load(path)
    return evaluate_and_report(cfg, model)


def train(cfg: DictConfig, resume: bool = False, more_hooks: Sequence[HookBase] = ()) -> Metrics:
    """Trains, saves checkpoints and evaluates, as the configuration says.

    Args:
        cfg: the whole configuration. `dataloader.train` is called with rank and world_size beside
            its own arguments. It gives an endless iterable of batches that has `state_dict`,
            `load_state_dict` and a `dataset` with a length.
        resume: continue from the last checkpoint of train.output_dir, if there is one.
        more_hooks: of detectron2's kind; they act after the loop's own and before the log.

    Returns:
        Metrics of the evaluation at the end, on rank 0; empty on other ranks.

    Raises:
        InputError: settings that do not go together, or not with the checkpoint.
        CheckpointError: weights or checkpoint are missing or do not fit.
        NonFiniteTrainingError: too many steps in a row were not finite.
    """
    model = build_model(cfg)
    check_half_precisions(model, cfg.train.precision, cfg.train.eval_precision)
    loader = call(cfg.dataloader.train, rank=comm.get_rank(), world_size=comm.get_world_size())
    recipe = Recipe.of(cfg, len(loader.dataset), comm.get_world_size())
    optimizer = build_optimizer(cfg.optimizer, model, recipe.lr_factor)
    trainer = StreamingTrainer(
        training_module(model, **cfg.train.ddp),
        optimizer,
        loader,
        precision=cfg.train.precision,
        clip_grad_norm=cfg.train.clip_grad_norm,
        max_consecutive_skips=cfg.train.max_consecutive_skips,
    )
    checkpointer = SafeCheckpointer(
        model,  # not the wrapped one: names in the file carry no "module." prefix
        cfg.train.output_dir,
        trainer=trainer,
        allow_wrong_shape=cfg.train.init_allow_wrong_shape,
        allow_partial=cfg.train.get("init_allow_partial", False),  # an older config.yaml lacks it
    )
    results: Metrics = {}

    def evaluate_now() -> Metrics:
        results.clear()
        results.update(evaluate_and_report(cfg, model))
        return results

    # A checkpoint restores the state of the hooks that are there when it is loaded.
    trainer.register_hooks(_hooks(cfg, recipe, trainer, checkpointer, evaluate_now))
    logger.info(recipe.describe(cfg, model, optimizer))
    start_iter = _resume_or_start(cfg, trainer, checkpointer, resume)
    # Last: its writers open metrics.json, which had to be moved aside first, and they write what
    # the other hooks have put into the step's scalars.
    trainer.register_hooks([*more_hooks, _log_hook(cfg, recipe)])
    trainer.train(start_iter, recipe.max_iter)
    return results


def _hooks(
    cfg: DictConfig,
    recipe: Recipe,
    trainer: StreamingTrainer,
    checkpointer: SafeCheckpointer,
    evaluate_now: Callable[[], Metrics],
) -> list[HookBase | None]:
    """The loop's own hooks, but for the log, in the order in which they act."""
    settings = {key: cfg.schedule[key] for key in ("warmup_iters", "warmup_factor", "end_factor")}
    schedule = functools.partial(warmup_cosine, **settings)
    is_given = cfg.train.max_iter is not None
    return [
        hooks.IterationTimer(),
        ScheduleHook(schedule, trainer.optimizer, cfg.train.max_seconds),
        StreamStateHook(trainer.data_loader),
        BatchHook(recipe.global_batch, recipe.epoch_iters, recipe.max_iter, is_given),
        _checkpoint_hook(cfg, recipe, checkpointer),
        hooks.EvalHook(cfg.train.eval_period, evaluate_now),
    ]


def _resume_or_start(
    cfg: DictConfig, trainer: StreamingTrainer, checkpointer: SafeCheckpointer, resume: bool
) -> int:
    """Restores the last checkpoint or loads the start weights; returns the first iteration."""
    resuming = resume and _can_resume(checkpointer)
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resuming)
    if not resuming:
        # Not before the weights are loaded: a run that fails there must leave the other's files.
        _set_aside(cfg.train.output_dir)
        return 0
    start_iter = trainer.iter + 1  # a checkpoint holds the iteration that was just done
    # Other random numbers than those of the first iterations.
    seed_all_rng(cfg.train.seed + comm.get_rank() + start_iter)
    return start_iter


def _can_resume(checkpointer: SafeCheckpointer) -> bool:
    """Whether there is a last checkpoint; raises if only the file that names it is missing."""
    if checkpointer.has_checkpoint():
        return True
    folder = Path(checkpointer.save_dir)
    left = sorted(path.name for path in folder.glob("model_*.pth"))
    left += [path.name for path in folder.glob("last_checkpoint.old")]
    if left:
        raise CheckpointError(
            f"--resume: {folder} has no last_checkpoint, but {', '.join(left[-3:])} of an earlier "
            "run. To continue that run, write the name of its newest checkpoint into "
            f"{folder / 'last_checkpoint'} (if a later run was begun there, last_checkpoint.old "
            "holds the name). To start anew, leave out --resume"
        )
    logger.warning("nothing to resume in %s: starting anew", folder)
    return False


def _set_aside(folder: str) -> None:
    """Renames what an earlier run left and this run would mix with its own."""
    if not comm.is_main_process():
        return
    # Curves would be appended to; a later --resume would take the other run's checkpoint.
    for name in ("metrics.json", "last_checkpoint"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            os.replace(path, f"{path}.old")
            logger.warning("%s is of an earlier run: moved to %s.old", path, path)


def _checkpoint_hook(
    cfg: DictConfig, recipe: Recipe, checkpointer: SafeCheckpointer
) -> CheckpointHook | None:
    if not comm.is_main_process():
        return None  # all ranks have the same weights, one writes them
    options = dict(cfg.train.checkpointer)
    options["period"] = options["period"] or recipe.epoch_iters
    return CheckpointHook(checkpointer, **options)


def _log_hook(cfg: DictConfig, recipe: Recipe) -> hooks.PeriodicWriter | None:
    if not comm.is_main_process():
        return None
    # With a limit of time, the writer's estimate of the remaining time would be wrong: it counts
    # iterations. None leaves it out.
    expected_iters = None if cfg.train.max_seconds else recipe.max_iter
    writers = default_writers(cfg.train.output_dir, expected_iters)
    return hooks.PeriodicWriter(writers, period=cfg.train.log_period)
