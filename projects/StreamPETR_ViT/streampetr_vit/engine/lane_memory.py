"""The temporal memories of all lanes of all ranks, as rows of plain tensors for a checkpoint.

A model's memory is a tensor, or a dataclass of tensors, whose first dimension is the lane. Row i
of a checkpoint is lane i of all: rank 0's lanes come first. So the ranks of a later run find their
lanes even if another number of processes shares them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

from streampetr_vit.errors import CheckpointError

Rows = dict[str, Tensor]


def gather_rows(memory: Any) -> Rows | None:
    """The rows of all ranks, on rank 0's CPU; on all ranks at once.

    Args:
        memory: of this rank's lanes; None, on all ranks alike, before the first step and after a
            step without a memory.

    Returns:
        Rows by the name of the attribute; None without a memory, and on other ranks.
    """
    own = None if memory is None else {k: v.detach().cpu() for k, v in _parts(memory).items()}
    if comm.get_world_size() == 1:
        return own
    parts: list[Any] | None = [None] * comm.get_world_size() if comm.is_main_process() else None
    # On gloo, whatever the backend of training.
    dist.gather_object(own, parts, group=comm._get_global_gloo_group())
    if parts is None or own is None:
        return None
    return {name: torch.cat([part[name] for part in parts]) for name in own}


def own_memory(rows: Mapping[str, Tensor], empty: Any) -> Any:
    """This rank's memory among the rows of all.

    Args:
        rows: of a checkpoint.
        empty: the model's empty memory for this rank's lanes; tells kind, shapes and device.

    Raises:
        CheckpointError: the rows are not those of such a memory.
    """
    template = _parts(empty)
    lanes = len(next(iter(template.values())))
    first, count = comm.get_rank() * lanes, comm.get_world_size() * lanes
    own = {}
    for name, like in template.items():
        value = rows.get(name) if isinstance(rows, Mapping) else None
        if value is None and name == "lineage" and rows:
            # Checkpoints of older versions have none, and a training names no tracks.
            own[name] = like.clone()
            continue
        if not _fits(value, like, count):
            found = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else value
            raise CheckpointError(
                f"cannot resume: the temporal memory's {name} is {found} in the checkpoint, and at "
                f"least {(count, *like.shape[1:])} {like.dtype} here: model.head has changed. "
                "Resume with the "
                "model of the checkpoint; or pass train.restart_streams=True, which begins all "
                "streams anew and keeps weights, optimiser and schedule"
            )
        own[name] = value[first : first + lanes].to(like.device, copy=True)
    return own["memory"] if isinstance(empty, Tensor) else replace(empty, **own)


def _fits(value: object, like: Tensor, count: int) -> bool:
    """Whether rows of all lanes can be memories such as `like`, which may have fewer entries."""
    if not isinstance(value, Tensor) or value.dtype != like.dtype or value.ndim != like.ndim:
        return False
    # (lanes, entries, ...): a frame adds its entries, and the next one drops the oldest.
    entries = value.shape[1:2] >= like.shape[1:2]
    return len(value) == count and entries and value.shape[2:] == like.shape[2:]


def _parts(memory: Any) -> Rows:
    if isinstance(memory, Tensor):
        return {"memory": memory}
    if is_dataclass(memory):
        return {field.name: getattr(memory, field.name) for field in fields(memory)}
    raise TypeError(f"a memory must be a tensor or a dataclass of tensors, not {type(memory)}")
