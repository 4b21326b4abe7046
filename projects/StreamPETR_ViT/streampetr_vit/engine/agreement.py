"""What several processes must not decide each for itself: one decides, or one fails for all.

A process that fails alone leaves the others in their next collective call, where they wait. So what
depends on a machine's disk is done through these two functions.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist
from detectron2.utils import comm

from streampetr_vit.errors import UserError

Result = TypeVar("Result")


def on_rank_0(work: Callable[[], Result]) -> Result:
    """Runs `work` on rank 0 alone; every rank returns its result, or raises its error.

    Args:
        work: its result must be picklable.
    """
    if comm.get_world_size() == 1:
        return work()
    outcome: list[Result | Exception | None] = [None]
    if comm.is_main_process():
        try:
            outcome[0] = work()
        except UserError as error:
            outcome[0] = error
        except Exception as error:
            # The others learn of it before this process ends with its traceback.
            outcome[0] = RuntimeError(f"rank 0 failed: {type(error).__name__}: {error}")
            _broadcast(outcome)
            raise
    _broadcast(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]  # type: ignore[return-value]


def on_all_ranks(work: Callable[[], Result]) -> Result:
    """Runs `work` on every rank and returns its own result.

    Where it raises a UserError on some ranks, all raise that of the first of them, with its rank
    and machine; where it raises on all, each raises its own.
    """
    if comm.get_world_size() == 1:
        return work()
    own: UserError | None = None
    try:
        result = work()
    except UserError as error:
        own = error
    errors = from_all_ranks((socket.gethostname(), own))
    if own is not None and all(error is not None for _, error in errors):
        raise own
    for rank, (host, error) in enumerate(errors):
        if error is not None:
            raise type(error)(f"rank {rank} on {host}: {error}") from own
    return result


def from_all_ranks(value: Result) -> list[Result]:
    """Every rank's value, in the order of ranks, on every rank.

    Args:
        value: picklable.
    """
    if comm.get_world_size() == 1:
        return [value]
    # Not detectron2's `all_gather`: that of v0.6 makes torch warn on every rank.
    values: list[Any] = [None] * comm.get_world_size()
    dist.all_gather_object(values, value, group=comm._get_global_gloo_group())
    return values


def _broadcast(values: list) -> None:
    """Replaces the values by rank 0's."""
    # On gloo: NCCL would move the pickled bytes through the GPU.
    dist.broadcast_object_list(values, src=0, group=comm._get_global_gloo_group())
