"""What a predictor has seen, as a file: memories and places of its cars. Nothing in it runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.files import replacing
from streampetr_vit.inference.continuity import Drive
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Pose

_DRIVES = "drives"  # (B, 11) float64: see `_row`
_MEMORY = [field.name for field in fields(TemporalMemory)]


def write_state(
    path: str | os.PathLike[str], memories: Sequence[TemporalMemory], drives: Sequence[Drive]
) -> None:
    """Writes memories (1, M, ...) of B cars and their places."""
    rows = torch.tensor([_row(drive) for drive in drives], dtype=torch.float64)
    tensors = {_DRIVES: rows.reshape(-1, 11)}
    for row, memory in enumerate(memories):
        # Copies: the memories of several cars share storage, which the format refuses.
        tensors |= {f"{name}.{row}": getattr(memory, name).cpu().clone() for name in _MEMORY}
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def read_state(
    path: str | os.PathLike[str], like: TemporalMemory
) -> tuple[list[TemporalMemory], list[Drive]]:
    """Reads what `write_state` wrote.

    Args:
        path: the file.
        like: a memory of one car of the same detector, on its device.

    Raises:
        MissingFileError: no such file.
        InputError: it is damaged, or of another detector.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"there is no state of a predictor at {os.fspath(path)!r}")
    try:
        tensors = load_file(path)
        drives = [_drive(row) for row in tensors.pop(_DRIVES).tolist()]
        memories = [
            TemporalMemory(*(tensors.pop(f"{name}.{row}") for name in _MEMORY))
            for row in range(len(drives))
        ]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
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
    return [
        memory.map(lambda value: value.to(like.embedding.device)) for memory in memories
    ], drives


def _row(drive: Drive) -> list[float]:
    """Time, position, quaternion, remembered time, scene, gaps: 11 numbers."""
    pose = drive.vehicle_to_world
    numbers = [*pose.translation_m.tolist(), *pose.rotation_wxyz.tolist()]
    return [drive.timestamp_s, *numbers, drive.remembered_s, drive.scene, drive.gaps]


def _drive(row: Sequence[float]) -> Drive:
    time_s, *pose, remembered_s, scene, gaps = row
    return Drive(time_s, Pose.of_row(np.array(pose)), remembered_s, int(scene), int(gaps))
