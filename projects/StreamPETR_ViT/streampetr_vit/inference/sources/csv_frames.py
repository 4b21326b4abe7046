"""Reads frames.csv, the table of a drive."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.inference.sources.frame_columns import PLACE, QUATERNION, FrameColumns
from streampetr_vit.texts import name_list, nearest, printable, shown

_ANGLES = ("yaw_rad", "pitch_rad", "roll_rad")
_NUMBERS = (*PLACE, *QUATERNION, *_ANGLES)  # of a pose
_OWN = ("timestamp_s", "frame", "scene", *_NUMBERS)
_LARGEST_ANGLE_RAD = 7.0  # a little over a turn
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}

Cells = Mapping[str, "array[float] | list[str]"]


def read_csv(path: Path, cameras: Sequence[str], scene: str) -> FrameColumns:
    """The frames of a CSV file with a header.

    Args:
        path: the file, in UTF-8.
        cameras: names of the rig's cameras, which columns may have.
        scene: name of the scene where no column says it.

    Raises:
        MissingFileError: it cannot be read.
        InputError: a column is missing, unknown or there twice; a cell is none that its column may
            have. It names the line and the column.
    """
    taken = {*_OWN, *(f"{name}.{part}" for name in cameras for part in _NUMBERS)}
    clash = [name for name in cameras if name in taken]
    if clash:
        raise InputError(
            f"camera {shown(clash[0])} has the name of a column of {path}: rename the camera, or "
            "write frames.jsonl"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = _header(path, next(filter(None, reader), []), cameras)
            cells, lines = _cells(path, header, cameras, reader)
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no CSV file in UTF-8 ({printable(error)}); write it again"
        ) from error
    count = len(lines)
    return FrameColumns(
        path=path,
        lines=np.array(lines, dtype=np.int64),
        names=cells.get("frame") or [f"{row:06d}" for row in range(count)],
        scenes=cells.get("scene") or [scene] * count,
        timestamp_s=np.array(cells["timestamp_s"], dtype=np.float64),
        vehicle_to_world=_poses(path, lines, cells, ""),
        pictures={name: cells[name] for name in cameras if name in cells},
        camera_vehicle_to_world={
            name: _poses(path, lines, cells, f"{name}.") for name in cameras if f"{name}.x" in cells
        },
    )


def _header(path: Path, header: list[str], cameras: Sequence[str]) -> list[str]:
    """The names of the columns, after a check."""
    header = [name.strip() for name in header]
    known = [*_OWN, *cameras, *(f"{name}.{part}" for name in cameras for part in _NUMBERS)]
    for separator, what in _OTHER_SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise InputError(f"{path} has {what} between its columns; write commas")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise InputError(f"{path} has the column {shown(twice[0])} twice; leave one out")
    unknown = [name for name in header if name not in known]
    if unknown:
        alike = nearest(unknown[0], known)
        meant = f"nearest: {name_list(alike)}" if alike else f"cameras: {name_list(cameras)}"
        raise InputError(
            f"{path} has the column {shown(unknown[0])}, which is unknown ({meant}); columns are "
            f"{name_list(_OWN)}, the cameras of rig.yaml, and CAMERA.x to CAMERA.qz"
        )
    prefixes = ["", *(f"{name}." for name in cameras)]
    used = [p for p in prefixes if not p or any(f"{p}{part}" in header for part in _NUMBERS)]
    needed = ["timestamp_s", *(name for p in used for name in _needed(p, header))]
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(
            f"{path} has no column {name_list(missing)}; it has {name_list(header) or 'none'}. A "
            "pose needs x, y, z and qw, qx, qy, qz, or x, y, z and yaw_rad"
        )
    both = [p for p in used if f"{p}qw" in header and any(f"{p}{a}" in header for a in _ANGLES)]
    if both:
        raise InputError(
            f"{path} has the columns {both[0]}qw and {both[0]}yaw_rad or pitch_rad or roll_rad: "
            "leave out either the quaternion or the angles"
        )
    return header


def _needed(prefix: str, header: Sequence[str]) -> list[str]:
    angles = any(f"{prefix}{name}" in header for name in _ANGLES)
    turn = ("yaw_rad",) if angles and f"{prefix}qw" not in header else QUATERNION
    return [f"{prefix}{name}" for name in (*PLACE, *turn)]


def _cells(
    path: Path, header: Sequence[str], cameras: Sequence[str], reader: Iterator[list[str]]
) -> tuple[Cells, list[int]]:
    """Each column's values, and the line of each row."""
    texts = {"frame", "scene", *cameras}
    cells: dict[str, array[float] | list[str]] = {
        name: [] if name in texts else array("d") for name in header
    }
    lines = []
    for row in reader:
        line = reader.line_num  # type: ignore[attr-defined]
        if not row:  # an empty line
            continue
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(row)} values for {len(header)} columns; write one for "
                "each column, nothing between two commas for a camera without a picture"
            )
        for name, text in zip(header, row, strict=True):
            column = cells[name]
            if isinstance(column, list):
                column.append(text.strip())
            else:
                column.append(_number(path, line, name, text))
        lines.append(line)
    return cells, lines


def _number(path: Path, line: int, name: str, text: str) -> float:
    if not text.strip() and "." in name:  # the pose of a camera may be left out
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        given = shown(text) if text.strip() else "empty"
        raise InputError(f"{path}, line {line}, column {name} is {given}; give a finite number")
    return value


def _poses(path: Path, lines: Sequence[int], cells: Cells, prefix: str) -> np.ndarray:
    """(n, 7) float64, x y z qw qx qy qz; NaN in all where nothing is given."""

    def columns(names: Sequence[str]) -> np.ndarray:
        nothing = np.zeros(len(lines))
        return np.stack([np.array(cells.get(prefix + name, nothing)) for name in names], axis=1)

    place = columns(PLACE)
    if f"{prefix}qw" in cells:
        return np.concatenate((place, columns(QUATERNION)), axis=1)
    angles = columns(_ANGLES)
    wrong = np.argwhere(np.abs(angles) > _LARGEST_ANGLE_RAD)
    if len(wrong):
        row, part = wrong[0]
        raise InputError(
            f"{path}, line {lines[row]}, column {prefix}{_ANGLES[part]} is "
            f"{angles[row, part]:g}; give radians between -2 pi and 2 pi, not degrees"
        )
    known = np.isfinite(angles).all(axis=1)
    turns = np.full((len(lines), 4), np.nan)
    # R = Rz(yaw) Ry(pitch) Rx(roll)
    if known.any():
        turns[known] = Rotation.from_euler("ZYX", angles[known]).as_quat()[:, [3, 0, 1, 2]]
    return np.concatenate((place, turns), axis=1)
