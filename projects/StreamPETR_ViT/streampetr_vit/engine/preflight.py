"""What a run will need at its end, checked before its first step.

Hours of training must not end with a missing table, a folder that cannot be written or a full disk.
The checks read what is small and look whether the rest is there; they take a second or two.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from streampetr_vit.checkpoint.manifest import MANIFEST, in_order
from streampetr_vit.engine.agreement import from_all_ranks, on_all_ranks, on_rank_0
from streampetr_vit.engine.best_checkpoint import BEST_CHECKPOINT
from streampetr_vit.engine.checkpoint_hook import FINAL_CHECKPOINT
from streampetr_vit.engine.config import call
from streampetr_vit.engine.evaluators import (
    build_evaluators,
    evaluator_parts,
    is_tracking,
    main_part,
    stream_tracker,
)
from streampetr_vit.engine.recipe import Recipe
from streampetr_vit.errors import InputError
from streampetr_vit.export.runner import OnnxDetector
from streampetr_vit.files import check_space, replacing
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.precision import autocast

logger = logging.getLogger(__name__)


def check_training(
    cfg: DictConfig, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> None:
    """Checks what training, its checkpoints and its evaluation will need; the same on all ranks.

    Raises:
        UserError: the first thing that is missing, with the way out.
    """
    start = time.perf_counter()
    on_rank_0(lambda: _check_outputs(cfg, model, optimizer, recipe))
    check_evaluation(cfg, model)
    logger.info("checked what the end of the run needs, in %.1f s", time.perf_counter() - start)


def check_evaluation(cfg: DictConfig, model: nn.Module | OnnxDetector) -> None:
    """Checks what an evaluation will need: test set, evaluators, folders; the same on all ranks.

    An evaluator may have a method `check(tokens, max_detections)`, see `NuScenesEvaluator.check`.

    Raises:
        UserError: the first thing that is missing, with the way out.
    """
    if not evaluator_parts(cfg):
        return
    if isinstance(model, nn.Module):  # graphs have the precision that they were exported with
        device_type = next(model.parameters()).device.type
        on_all_ranks(lambda: autocast(cfg.train.eval_precision, device_type))
    parts = from_all_ranks(on_all_ranks(lambda: _check_test_set(cfg)))
    tokens = [token for part in parts for token in part]
    on_rank_0(lambda: _check_evaluators(cfg, model, tokens))


def _check_test_set(cfg: DictConfig) -> list[str]:
    """Opens the test set and reads a sample of it; the tokens of this rank's, if it has such."""
    loader = call(cfg.dataloader.test, rank=comm.get_rank(), world_size=comm.get_world_size())
    if len(loader) > 0 and hasattr(loader, "first_sample"):
        loader.first_sample()  # its pictures are read: they may lie elsewhere than the tables
    return getattr(loader, "tokens", [])


def _check_evaluators(cfg: DictConfig, model: nn.Module | OnnxDetector, tokens: list[str]) -> None:
    parts = evaluator_parts(cfg)
    folders = [part.get("output_dir") for part in parts]
    if cfg.get("report") is not None:
        folders.append(cfg.train.output_dir)
    for folder in folders:
        if folder is not None:
            check_folder(folder)
    if cfg.get("report") is not None and is_tracking(main_part(cfg)):
        raise InputError(
            "dataloader.evaluator has evaluators of tracks only, and the report shows detections: "
            "put a NuScenesEvaluator into the list, or set report=null"
        )
    evaluators = build_evaluators(parts)
    names = [getattr(evaluator, "name", "") for evaluator in evaluators]
    for name in filter(None, names):
        if names.count(name) > 1:
            raise InputError(
                f"{names.count(name)} of dataloader.evaluator have the name {name!r}, and would "
                "overwrite each other's results: give each its own name"
            )
    if stream_tracker(evaluators) is not None:
        _check_memory_of_ids(cfg, model)
    for evaluator in evaluators:
        if hasattr(evaluator, "check"):
            evaluator.check(tokens, getattr(model, "max_detections", None))


def _check_memory_of_ids(cfg: DictConfig, model: nn.Module | OnnxDetector) -> None:
    """Looks for what a tracker needs whose ids are in the network's memory."""
    if not isinstance(model, (StreamPETR, OnnxDetector)):
        raise InputError(
            f"dataloader.evaluator gives ids to the memory of a StreamPETR, and the model is a "
            f'{type(model).__name__}: set its tracker to "greedy", which needs none'
        )
    # Each process counts its ids from 0: two objects of a scene that is cut would have the same.
    if cfg.dataloader.test.get("sharding") == "reference" and comm.get_world_size() > 1:
        raise InputError(
            'dataloader.test.sharding="reference" cuts scenes, and dataloader.evaluator gives ids '
            "to the memory of a scene: take dataloader.test.sharding=scene, one process, or "
            'tracker="greedy"'
        )


def _check_outputs(
    cfg: DictConfig, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> None:
    folder = Path(cfg.train.output_dir)
    check_folder(folder)
    _check_tensorboard()
    _remove_leftovers(folder)
    settings = cfg.train.checkpointer
    periods = recipe.max_iter // (settings.period or recipe.epoch_iters)
    keep = settings.get("max_to_keep")
    numbered = periods if keep is None else min(periods, keep)
    beside = [FINAL_CHECKPOINT]
    # An older config.yaml lacks these.
    if cfg.train.get("best_checkpoint") is not None:
        beside.append(BEST_CHECKPOINT)
    averaged = cfg.train.get("ema") is not None
    size = checkpoint_bytes(model, optimizer, averaged)
    check_checkpoint_space(folder, size, numbered, beside)


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Makes a folder if need be, and writes and removes a file in it.

    Raises:
        OutputError: it cannot be written.
    """
    probe = Path(folder, ".can_be_written")
    with replacing(probe) as temporary:
        temporary.write_bytes(b"\n")
    probe.unlink(missing_ok=True)


def check_checkpoint_space(
    folder: Path, size: int, numbered: int, beside: Sequence[str] = (FINAL_CHECKPOINT,)
) -> None:
    """Compares the free space with what the checkpoints of a run will take.

    Args:
        folder: that they go to.
        size: bytes of one.
        numbered: how many stay by their number.
        beside: names of the others, without their ending.

    Raises:
        OutputError: there is not enough.
    """
    # The next file is written before an old one is removed.
    files = numbered + len(beside) + 1
    names = [f"{name}.pth" for name in beside]
    paths = {*in_order(folder), *(folder / name for name in names)}
    there = sum(path.stat().st_size for path in paths if path.is_file())
    check_space(
        folder,
        max(files * size - there, size),
        f"the checkpoints of this run ({files} files of {size / 1e9:.3g} GB: {numbered} by "
        f"train.checkpointer.period and max_to_keep, {', '.join(names)}, one being written)",
        "set train.output_dir to a folder on another disk, or lower train.checkpointer.max_to_keep",
    )


def checkpoint_bytes(
    model: nn.Module, optimizer: torch.optim.Optimizer, averaged: bool = False
) -> int:
    """The size of a checkpoint: weights, buffers and the optimiser's state after a step.

    Args:
        model, optimizer: that are saved.
        averaged: there is an average of the weights beside them.
    """
    copies = 2 if averaged else 1
    weights = copies * sum(value.nbytes for value in model.state_dict().values())
    # Moments of the Adam family: two of each parameter; a momentum is one.
    moments = 2 if "betas" in optimizer.defaults else 1 if optimizer.defaults.get("momentum") else 0
    trained = sum(p.nbytes for group in optimizer.param_groups for p in group["params"])
    return math.ceil(1.01 * (weights + moments * trained))  # and names and positions


def _check_tensorboard() -> None:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the training curves need tensorboard, which cannot be imported ({error}): pip "
            "install tensorboard"
        ) from error


def _remove_leftovers(folder: Path) -> None:
    """Removes half files, which a run leaves if it is killed while it writes a checkpoint."""
    for name in ("model_*.pth", MANIFEST, "last_checkpoint"):
        for path in folder.glob(f"{name}.????????????.tmp"):
            logger.warning("removed %s, which a killed run left half written", path)
            path.unlink(missing_ok=True)
