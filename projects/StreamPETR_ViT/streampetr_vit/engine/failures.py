"""Failures that are no fault of the program, in one line each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from streampetr_vit.data.at_work import at_work
from streampetr_vit.errors import UserError

# Words of gloo, NCCL and torch's store where another process is gone or silent.
_LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|gloo.*(timed? ?out|transport|rank)|"
    r"watchdog|remote process exited|wait timeout|socket timeout|NCCL communicator was aborted",
    re.IGNORECASE | re.DOTALL,
)
_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", re.DOTALL)


class ProcessError(UserError, RuntimeError):
    """A process of the job, a loading process among them, ended or used up its memory."""


class LostProcessError(ProcessError):
    """Another process of the job ended or is silent; that one knows why."""


def user_error(error: BaseException) -> UserError | None:
    """The failure in words for the user; None if it is a fault of the program.

    Args:
        error: whatever a training or an evaluation raised.
    """
    if isinstance(error, UserError):
        return error
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return ProcessError(
            f"out of GPU memory ({_first_line(text)}). Lower dataloader.train.lanes_per_rank, "
            "or set model.backbone.net.use_act_checkpoint=True; see docs/train.md, Memory and speed"
        )
    if not isinstance(error, RuntimeError):
        return None
    worker = _WORKER.search(text)
    if worker:
        return ProcessError(
            f"a loading process ended: {_first_line(worker[2])}. {_read_by(worker[1])}Killed often "
            "means that memory ran out, and a bus error that /dev/shm is too small (docker: "
            "--shm-size=8g): lower dataloader.train.num_workers, or set it to 0 to load in the "
            'training process. A script of your own needs `if __name__ == "__main__":` around what '
            "it does"
        )
    if "can't allocate memory" in text:  # of torch's CPU allocator
        return ProcessError(
            f"out of memory ({_first_line(text)}). Lower dataloader.train.lanes_per_rank or "
            "dataloader.train.num_workers"
        )
    if isinstance(error, dist.DistError) or (dist.is_initialized() and _LOST.search(text)):
        return LostProcessError(
            "another process of this run ended, or no longer answers "
            f"({_first_line(text).partition('. ')[0]}). "
            "If it printed no error of its own, look at the end of its log.txt.rankN"
        )
    return None


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Raises what `user_error` knows as a `UserError`, and lets all else pass."""
    try:
        yield
    except Exception as error:
        known = user_error(error)
        if known is None or known is error:
            raise
        raise known from error


def _read_by(pids: str) -> str:
    """What processes were reading when they ended, as a sentence; nothing if it is not known."""
    found = [text for text in map(at_work, map(int, pids.split(","))) if text is not None]
    return f"It was reading {'; '.join(found)}. " if found else ""


def _first_line(text: str) -> str:
    """The first line, without gloo's place in its source, of at most 200 characters."""
    line = re.sub(r"^\[[^\]]*\] *", "", text.strip().splitlines()[0]) if text.strip() else "no text"
    return (line if len(line) <= 200 else f"{line[:197]}...").rstrip(". ")
