"""The frames of a drive as columns, and what holds for every file that they come from.

n is the number of frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampetr_vit.errors import InputError
from streampetr_vit.structures.rigid import FARTHEST_M, ROTATION_TOLERANCE, short
from streampetr_vit.texts import shown

SHORTEST_STEP_S, LONGEST_STEP_S = 0.002, 30.0
_LATEST_S = 1e20  # nanoseconds since 1970 are less; behind it differences may overflow
_UNITS = {1: "milliseconds", 2: "microseconds", 3: "nanoseconds"}  # thousands of a second
PLACE, QUATERNION = ("x", "y", "z"), ("qw", "qx", "qy", "qz")  # columns of a pose
_STANDING = np.array([0.0, 0, 0, 1, 0, 0, 0])


@dataclass(frozen=True, eq=False)
class FrameColumns:
    """Columns, because 10,000 frames are a few arrays and not 10,000 dicts.

    Attributes:
        path: the file that they were read from.
        lines: (n,) int64, line of the file that each frame ends in.
        names: n names of the frames.
        scenes: n names of the scenes.
        timestamp_s: (n,) float64.
        vehicle_to_world: (n, 7) float64, x y z qw qx qy qz of the vehicle in the world.
        pictures: camera -> n paths below the folder of the drive, "" for no picture; without the
            cameras whose pictures the file does not name.
        camera_vehicle_to_world: camera -> (n, 7) float64, pose of the vehicle when its picture was
            taken; NaN where it is that of the frame.
    """

    path: Path
    lines: np.ndarray
    names: Sequence[str]
    scenes: Sequence[str]
    timestamp_s: np.ndarray
    vehicle_to_world: np.ndarray
    pictures: Mapping[str, Sequence[str]]
    camera_vehicle_to_world: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.names)

    def where(self, row: int) -> str:
        """The place of a frame, for messages."""
        return f"{self.path}, line {self.lines[row]}"

    def scene_lengths(self) -> list[tuple[str, int]]:
        """(name, number of frames) of each scene, in order."""
        lengths: dict[str, int] = {}
        for scene in self.scenes:
            lengths[scene] = lengths.get(scene, 0) + 1
        return list(lengths.items())


def check_columns(columns: FrameColumns) -> None:
    """Checks what no single frame shows, and all numbers.

    Raises:
        InputError: there is no frame; a name is empty or there twice; the frames of a scene are
            apart; a time or a pose cannot be one. It names the line, the column and the fix.
    """
    if len(columns) == 0:
        raise InputError(f"{columns.path} has no frames; write a line for each moment")
    _check_names(columns)
    _check_finite(columns, "timestamp_s", columns.timestamp_s[:, None])
    _check_times(columns)
    _check_poses(columns, "", columns.vehicle_to_world)
    for camera, poses in columns.camera_vehicle_to_world.items():
        given = ~np.isnan(poses).all(axis=1)
        _check_poses(columns, f" of camera {camera}", np.where(given[:, None], poses, _STANDING))


def _check_names(columns: FrameColumns) -> None:
    first_row: dict[str, int] = {}
    ended: set[str] = set()
    for row, (name, scene) in enumerate(zip(columns.names, columns.scenes, strict=True)):
        if not name or not scene:
            field = "scene" if name else "frame"
            raise InputError(f"{columns.where(row)}: {field} is empty; give a name to all or none")
        if name in first_row:
            raise InputError(
                f"{columns.where(row)}: frame {shown(name)} is there already, in line "
                f"{columns.lines[first_row[name]]}; each frame of the file needs its own name"
            )
        first_row[name] = row
        if row and scene != columns.scenes[row - 1]:
            ended.add(columns.scenes[row - 1])
        if scene in ended:
            raise InputError(
                f"{columns.where(row)}: scene {shown(scene)} goes on after another scene; write "
                "the frames of a scene behind one another"
            )


def _check_times(columns: FrameColumns) -> None:
    far = np.flatnonzero(np.abs(columns.timestamp_s) > _LATEST_S)
    if len(far):
        row = int(far[0])
        raise InputError(
            f"{columns.where(row)}: timestamp_s is {columns.timestamp_s[row]:g}; give seconds"
        )
    pairs = zip(columns.scenes[1:], columns.scenes[:-1], strict=True)
    within = np.array([now == before for now, before in pairs], dtype=bool)
    steps = np.diff(columns.timestamp_s)
    back = np.flatnonzero(within & (steps <= 0))
    if len(back):
        row = int(back[0]) + 1
        raise InputError(
            f"{columns.where(row)}: timestamp_s {columns.timestamp_s[row]:.6f} does not come after "
            f"{columns.timestamp_s[row - 1]:.6f} of the frame before; sort the frames by time, or "
            "begin another scene"
        )
    steps = steps[within]
    median = float(np.median(steps)) if len(steps) else 0.1
    if not SHORTEST_STEP_S <= median <= LONGEST_STEP_S:
        thousands = round(math.log10(median / 0.1) / 3)  # cameras take about ten pictures a second
        looks = f" and look like {_UNITS[thousands]}" if thousands in _UNITS else ""
        raise InputError(
            f"{columns.where(1)}: the values of timestamp_s are {median:g} apart (median){looks}; "
            "give seconds"
        )


def _check_poses(columns: FrameColumns, whose: str, poses: np.ndarray) -> None:
    _check_finite(columns, f"the pose{whose}", poses)
    lengths = np.linalg.norm(poses[:, 3:], axis=1)
    wrong = np.flatnonzero(np.abs(lengths - 1) > ROTATION_TOLERANCE)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{columns.where(row)}: the quaternion{whose} (qw, qx, qy, qz) is "
            f"{short(poses[row, 3:])}, of length {lengths[row]:.4g}; give a unit quaternion"
        )
    far = np.flatnonzero(np.abs(poses[:, :3]).max(axis=1) > FARTHEST_M)
    if len(far):
        row = int(far[0])
        raise InputError(
            f"{columns.where(row)}: the position{whose} (x, y, z) is {short(poses[row, :3])}; "
            "give metres"
        )


def _check_finite(columns: FrameColumns, what: str, values: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{columns.where(row)}: {what} is {short(values[row])}; give finite numbers"
        )
