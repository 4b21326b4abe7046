"""What a training starts from: the last checkpoint of its folder, or the start weights.

Rank 0 looks into the folder and tells the others. They load the same file, or all ranks end with
one error: ranks that start at different iterations would wait for each other without end.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig

from streampetr_vit.checkpoint.formats import AVERAGE
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.checkpoint.manifest import (
    ON_PURPOSE,
    damage,
    go_on_from,
    in_order,
    read_manifest,
)
from streampetr_vit.engine.agreement import on_all_ranks, on_rank_0
from streampetr_vit.engine.run_folder import EARLIER, as_override, set_aside
from streampetr_vit.engine.stream_hooks import BatchHook, StreamStateHook
from streampetr_vit.engine.trainer import MEMORIES, StreamingTrainer
from streampetr_vit.errors import CheckpointError, InputError

logger = logging.getLogger(__name__)


def resume_or_start(
    cfg: DictConfig,
    trainer: StreamingTrainer,
    checkpointer: SafeCheckpointer,
    batch: BatchHook,
    streams: StreamStateHook,
    resume: bool,
) -> int:
    """Restores the last checkpoint or loads the start weights; returns the first iteration.

    Args:
        cfg: the whole configuration.
        trainer, checkpointer: whose state is restored.
        batch, streams: hooks of the trainer, which restore the clock and the loader's position.
        resume: take the last checkpoint, if there is one.

    Raises:
        CheckpointError: a file is missing or does not fit, on any rank.
        InputError: the checkpoint has more iterations than the run asks for.
    """
    path = on_rank_0(lambda: _sound_checkpoint(checkpointer) if resume else None)
    if path is None:
        on_all_ranks(lambda: checkpointer.load(cfg.train.init_checkpoint, checkpointables=[]))
        # Not before the weights are loaded: a run that fails there must leave the other's files.
        on_rank_0(lambda: set_aside(checkpointer.save_dir))
        return 0
    seen = on_rank_0(lambda: (os.path.getsize(path), socket.gethostname()))
    on_all_ranks(lambda: _check_sees(path, *seen))
    rest = on_all_ranks(lambda: checkpointer.resume(path))
    if AVERAGE in rest:
        logger.warning("the average of the weights in %s is left out: train.ema is null", path)
    start_iter = on_rank_0(lambda: trainer.iter + 1)  # the file holds the one that was just done
    on_all_ranks(lambda: _check_iteration(path, trainer.iter + 1, start_iter))
    _check_length(cfg, batch.clock.max_iter, path, start_iter)
    on_all_ranks(lambda: _restore_streams(cfg, trainer, batch, streams, rest))
    return start_iter


def _restore_streams(
    cfg: DictConfig,
    trainer: StreamingTrainer,
    batch: BatchHook,
    streams: StreamStateHook,
    rest: dict[str, Any],
) -> None:
    """Goes on with the streams of the checkpoint where they are those of this run."""
    if batch.position is not None:
        streams.restart_at(batch.position)
    if not streams.continues:
        return
    if MEMORIES not in rest:
        logger.warning("the checkpoint has no memories of its streams: they begin anew")
    try:
        trainer.restore_memory(rest.get(MEMORIES))
    except CheckpointError as error:
        if not cfg.train.get("restart_streams", False):
            raise
        logger.warning("the memories of all streams begin anew (%s)", error)


def _sound_checkpoint(checkpointer: SafeCheckpointer) -> str | None:
    """The last checkpoint that is as it was written; None where there was no run.

    Raises:
        CheckpointError: there are checkpoints, and none that can be taken.
    """
    last = last_checkpoint(checkpointer)
    if last is None:
        return None
    older = [path for path in in_order(checkpointer.save_dir) if path.name != Path(last).name]
    listed = list(read_manifest(checkpointer.save_dir))
    if Path(last).name in listed:  # what came later belongs to a run that was given up
        later = listed[listed.index(Path(last).name) + 1 :]
        older = [path for path in older if path.name not in later]
    found = []
    for path in [Path(last), *reversed(older)]:
        reason = damage(path)
        if reason is None:
            if found:
                logger.warning("%s; the one before is taken: %s", "; ".join(found), path)
            else:
                go_on_from(checkpointer.save_dir, path.name)
            return str(path)
        found.append(f"{path} is damaged: {reason}")
    raise CheckpointError(
        f"cannot resume: {'; '.join(found)}, and there is no checkpoint before it. {ON_PURPOSE}"
    )


def last_checkpoint(checkpointer: SafeCheckpointer) -> str | None:
    """The last checkpoint of a folder; None where there was no run.

    Raises:
        CheckpointError: only the file that names it is missing, or what it names is.
    """
    folder = Path(checkpointer.save_dir)
    if checkpointer.has_checkpoint():
        try:
            path = checkpointer.get_checkpoint_file()
        except UnicodeDecodeError:
            path = str(folder / "(no text)")
        if not os.path.isfile(path):
            names = [file.name for file in sorted(folder.glob("model_*.pth"))]
            raise CheckpointError(
                f"{folder / 'last_checkpoint'} names {os.path.basename(path)!r}, which is not in "
                f"{folder}; write the name of a checkpoint there into it "
                f"({', '.join(names[-3:]) or 'there is none'}), or leave out --resume"
            )
        return path
    if read_manifest(folder) and (listed := in_order(folder)):
        # A run that was killed in the moment in which its first checkpoint was complete.
        logger.warning("%s has no last_checkpoint: %s is the newest one", folder, listed[-1])
        return str(listed[-1])
    left = sorted(path.name for path in folder.glob("model_*.pth"))
    if left:
        raise CheckpointError(
            f"--resume: {folder} has no last_checkpoint, but {', '.join(left[-3:])} of an earlier "
            "run. To continue that run, write the name of its newest checkpoint into "
            f"{folder / 'last_checkpoint'}. To start anew, leave out --resume"
        )
    earlier = sorted(path.parent for path in folder.glob(f"{EARLIER}*/last_checkpoint"))
    if earlier:
        raise CheckpointError(
            f"--resume: {folder} has no last_checkpoint; earlier runs are in "
            f"{', '.join(map(str, earlier[-3:]))}. To continue one of them: --resume "
            f"{as_override('train.output_dir', str(earlier[-1]))}. To start anew, leave "
            "out --resume"
        )
    logger.warning("nothing to resume in %s: starting anew", folder)
    return None


def _check_sees(path: str, size: int, host: str) -> None:
    """Raises CheckpointError unless this machine has the file that rank 0 resumes from."""
    if not os.path.isfile(path) or os.path.getsize(path) != size:
        what = "has another" if os.path.isfile(path) else "does not have the"
        raise CheckpointError(
            f"this machine {what} {path} that rank 0 on {host} resumes from: set train.output_dir "
            "to a folder that all machines share, or copy that file here"
        )
    # Rank 0 has looked at its own copy; of each other machine one process looks.
    reason = damage(path) if comm.get_local_rank() == 0 and comm.get_rank() > 0 else None
    if reason is not None:
        raise CheckpointError(f"{path} is damaged on this machine: {reason}; copy it here again")


def _check_iteration(path: str, here: int, on_first: int) -> None:
    if here != on_first:
        raise CheckpointError(
            f"{path} is at iteration {here} on this machine, and at {on_first} on that of rank 0: "
            "set train.output_dir to a folder that all machines share, or copy rank 0's file here"
        )


def _check_length(cfg: DictConfig, length: int, path: str, start_iter: int) -> None:
    """Says so where nothing is left to train, and refuses a length that has been passed."""
    if start_iter > length:
        asked = "train.max_iter" if cfg.train.max_iter is not None else "schedule.epochs"
        raise InputError(
            f"cannot resume: {path} has {start_iter} iterations, and {asked} asks for {length}. To "
            f"train on, pass a train.max_iter above {start_iter}; to evaluate this checkpoint, "
            "pass --eval-only --resume"
        )
    if start_iter == length:
        logger.warning(
            "nothing is left to train: %s has all %d iterations; to train on, raise train.max_iter",
            path,
            length,
        )
