"""Boxes of the frames of a drive, read from a file in the form of objects.jsonl."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np

from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.texts import printable, shown

Frame = tuple[str, str]  # names of a scene and of a frame in it
_FIELDS = {"center": 3, "size": 3, "yaw": 1}


def read_boxes(path: str | os.PathLike[str], least_score: float) -> dict[Frame, np.ndarray]:
    """The boxes of each frame, (n, 7): centre, length, width, height and yaw in the vehicle frame.

    Args:
        path: a JSON object on each line, with scene, frame and objects; what else objects.jsonl has
            is not needed.
        least_score: weaker boxes are left out; one without a score is certain.

    Raises:
        MissingFileError: no such file.
        InputError: a line is something else, or its frame is there already; names its number.
    """
    boxes: dict[Frame, np.ndarray] = {}
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{os.fspath(path)}, line {number}"
                frame, rows = _boxes_of(line, where, least_score)
                if frame in boxes:
                    raise InputError(
                        f"{where}: frame {shown(frame[1])} of scene {shown(frame[0])} is there "
                        "already; write all of its boxes in one line"
                    )
                boxes[frame] = np.array(rows, dtype=np.float64).reshape(-1, 7)
    except OSError as error:
        raise MissingFileError(f"{os.fspath(path)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{os.fspath(path)} is no text: give an objects.jsonl") from error
    return boxes


def _boxes_of(line: str, where: str, least_score: float) -> tuple[Frame, list[list[float]]]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} is no JSON ({printable(error)}): write the file again"
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("objects"), list):
        raise InputError(f"{where}: give an object with scene, frame and objects, a list of boxes")
    name = (values.get("scene"), values.get("frame"))
    if not all(isinstance(part, str) for part in name):
        raise InputError(f"{where}: scene and frame are {shown(name)}, they must be texts")
    reference = values.get("frame_of_reference", "vehicle")
    if reference != "vehicle":
        raise InputError(
            f"{where}: frame_of_reference is {shown(reference)}; give the boxes in that of the "
            'vehicle, "vehicle"'
        )
    rows = [_row(box, where) for box in values["objects"]]
    return name, [row for row, score in rows if score >= least_score]  # type: ignore[return-value]


def _row(box: Any, where: str) -> tuple[list[float], float]:
    """Seven numbers of a box, and its score."""
    row: list[float] = []
    for name, count in _FIELDS.items():
        value = box.get(name) if isinstance(box, dict) else None
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) != count or not all(map(_is_number, numbers)):
            form = f"{count} finite numbers" if count > 1 else "a finite number"
            raise InputError(f"{where}: a box has {name} {shown(value)}; it must be {form}")
        if name == "size" and min(numbers) <= 0:
            raise InputError(
                f"{where}: a box has size {shown(value)}; give length, width and height, in metres"
            )
        row += numbers
    score = box.get("score", 1.0)
    if not _is_number(score):
        raise InputError(f"{where}: a box has score {shown(score)}; it must be a finite number")
    return row, score


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 1e12 and math.isfinite(value)
