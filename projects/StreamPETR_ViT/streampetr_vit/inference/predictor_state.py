"""What a predictor has seen, as a file: memories and places of its cars. Nothing in it runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.files import replacing
from streampetr_vit.inference.continuity import Drive
from streampetr_vit.inference.preparation import check_time
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Pose
from streampetr_vit.structures.rigid import as_pose
from streampetr_vit.tracking.table import COLUMNS, TrackTable

_DRIVES, _IDENTITY = "drives", "identity"  # (B, 10) float64, see `_row`; a text
_TRACKS = "tracks"
_MEMORY = [field.name for field in fields(TemporalMemory)]


def write_state(
    path: str | os.PathLike[str],
    memories: Sequence[TemporalMemory],
    drives: Sequence[Drive],
    identity: str,
    tables: Sequence[TrackTable] = (),
) -> None:
    """Writes memories (1, M, ...) of B cars, their places, and their tracks.

    Args:
        path: the file.
        memories, drives: of each car.
        identity: of the detector, see `LoadedDetector`.
        tables: tracks of each car; none where no tracker is at work.

    Raises:
        OutputError: it cannot be written.
    """
    rows = torch.tensor([_row(drive) for drive in drives], dtype=torch.float64)
    tensors = {_DRIVES: rows.reshape(-1, 10)}
    for row, memory in enumerate(memories):
        # Copies: the memories of several cars share storage, which the format refuses.
        tensors |= {f"{name}.{row}": getattr(memory, name).cpu().clone() for name in _MEMORY}
    for row, table in enumerate(tables):
        columns = table.columns().items()
        tensors |= {f"{_TRACKS}.{name}.{row}": torch.from_numpy(c.copy()) for name, c in columns}
        # A table of a car that has seen something has a time.
        scalars = [table.next_id, math.nan if table.timestamp_s is None else table.timestamp_s]
        tensors[f"{_TRACKS}.{row}"] = torch.tensor(scalars, dtype=torch.float64)
    with replacing(path) as temporary:
        # Not by safetensors' own writer, whose error on a full disk is no OSError.
        temporary.write_bytes(save(tensors, {_IDENTITY: identity}))


def read_state(
    path: str | os.PathLike[str], like: TemporalMemory, identity: str
) -> tuple[list[TemporalMemory], list[Drive], list[TrackTable]]:
    """Reads what `write_state` wrote; empty tables where it has none.

    Args:
        path: the file.
        like: a memory of one car of the same detector, on its device.
        identity: of the detector.

    Raises:
        MissingFileError: no such file.
        InputError: it is damaged, or of another detector.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"there is no state of a predictor at {os.fspath(path)!r}")
    try:
        with safe_open(path, "pt") as file:
            written_by = (file.metadata() or {}).get(_IDENTITY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        drives = _drives(tensors.pop(_DRIVES))
        for row in range(len(drives)):  # states of older versions know no tracks
            tensors.setdefault(f"lineage.{row}", like.lineage.cpu())
        memories = [
            TemporalMemory(*(_finite(tensors.pop(f"{name}.{row}")) for name in _MEMORY))
            for row in range(len(drives))
        ]
        tables = [_table(tensors, row, drive) for row, drive in enumerate(drives)]
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{os.fspath(path)} is no state of a predictor ({type(error).__name__}: {error}): "
            "remove it and begin anew"
        ) from error
    for memory in memories:
        for name in _MEMORY:
            value, wanted = getattr(memory, name), getattr(like, name)
            if value.dtype != wanted.dtype or value.shape != wanted.shape:
                raise InputError(
                    f"{os.fspath(path)} is of another detector: its {name} is "
                    f"{tuple(value.shape)} of {value.dtype}, not {tuple(wanted.shape)} of "
                    f"{wanted.dtype}; remove it and begin anew"
                )
    if written_by != identity:
        raise InputError(
            f"{os.fspath(path)} was written with other weights or another precision (PyTorch and "
            "each export count as others): remove it and begin anew"
        )
    for row, table in enumerate(tables):
        if table.timestamp_s is None:  # no tracker was at work: ids of an earlier one mean nothing
            memories[row] = replace(memories[row], lineage=like.lineage.cpu().clone())
    on_device = [memory.map(lambda value: value.to(like.embedding.device)) for memory in memories]
    return on_device, drives, tables


def _finite(value: Tensor) -> Tensor:
    if not value.isfinite().all():
        raise ValueError("the memory has NaN or infinite numbers")
    return value


def _table(tensors: Mapping[str, Tensor], row: int, drive: Drive) -> TrackTable:
    scalars = tensors.get(f"{_TRACKS}.{row}")
    if scalars is None:
        return TrackTable.empty()
    next_id, time_s = scalars.tolist()
    if not math.isnan(time_s) and time_s != drive.timestamp_s:
        raise ValueError(f"the tracks are of {time_s} s, and the car of {drive.timestamp_s} s")
    columns = {name: tensors[f"{_TRACKS}.{name}.{row}"].numpy() for name in COLUMNS}
    return TrackTable.of_columns(columns, int(next_id), None if math.isnan(time_s) else time_s)


def _row(drive: Drive) -> list[float]:
    """Time, position, quaternion, remembered time, odd: 10 numbers."""
    pose = drive.vehicle_to_world
    numbers = [*pose.translation_m.tolist(), *pose.rotation_wxyz.tolist()]
    return [drive.timestamp_s, *numbers, drive.remembered_s, drive.odd]


def _drives(rows: Tensor) -> list[Drive]:
    if rows.dim() != 2 or rows.shape[1] != 10 or rows.dtype != torch.float64:
        raise ValueError(f"{_DRIVES} is {tuple(rows.shape)} of {rows.dtype}")
    drives = []
    for time_s, *pose, remembered_s, odd in rows.tolist():
        place = as_pose(Pose.of_row(np.array(pose)), "vehicle_to_world")
        remembered_s = check_time(remembered_s)
        drives.append(Drive(check_time(time_s), place, remembered_s, int(odd)))
    return drives
