"""Tells camera poses that are inverse, or in axes of another convention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.inference.checks.camera_names import camera_list, contradicts
from streampetr_vit.structures import Camera

FloatArray = NDArray[np.float64]

LOWEST_M, HIGHEST_M = 0.05, 6.0  # of cameras above the road, robots and lorries included
_UPRIGHT = 0.26  # sine of 15 degrees: less, and the y axis of a camera does not point down
_CLEARLY_UPRIGHT = 0.77  # sine of 50 degrees


@dataclass(frozen=True)
class _Reading:
    """What a wrong camera_to_vehicle may be: how it is made right, and what to say."""

    turn: Sequence[Sequence[int]]  # columns: axes of the camera in the axes that were used
    inverse: bool
    cause: str

    def undone(self, pose: FloatArray) -> FloatArray:
        """The (4, 4) pose that was meant."""
        turn = np.eye(4)
        turn[:3, :3] = self.turn
        return (np.linalg.inv(pose) if self.inverse else pose) @ turn


_KEPT = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_BODY = ((0, 0, 1), (-1, 0, 0), (0, -1, 0))
_GL = ((1, 0, 0), (0, -1, 0), (0, 0, -1))
_AXES = "a camera has x right, y down, z forward"
_INVERSE = "camera_to_vehicle looks like vehicle_to_camera: give its inverse"
_OF_BODY = (
    f"its axes look like x forward, y left, z up, and {_AXES}: the columns of its rotation have to "
    "be -column 2, -column 3, column 1"
)
_OF_GL = (
    f"its axes look like OpenGL's x right, y up, z backward, and {_AXES}: multiply columns 2 and 3 "
    "of its rotation by -1"
)
_READINGS = (
    _Reading(_KEPT, True, _INVERSE),
    _Reading(_BODY, False, _OF_BODY),
    _Reading(_GL, False, _OF_GL),
    _Reading(_BODY, True, f"{_INVERSE}; and {_OF_BODY}"),
    _Reading(_GL, True, f"{_INVERSE}; and {_OF_GL}"),
    _Reading(
        ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
        False,
        "its pictures are upside down: turn pictures, intrinsics and rotation by 180 degrees",
    ),
    *(
        _Reading(
            ((0, -sign, 0), (sign, 0, 0), (0, 0, 1)),
            False,
            "its pictures lie on their side: turn pictures, intrinsics and rotation upright",
        )
        for sign in (1, -1)
    ),
)


def mistakes_of_axes(cameras: Sequence[Camera]) -> list[str]:
    """Poses that are inverse, or in axes of another convention; a line for each mistake."""
    matrices = {camera.name: camera.camera_to_vehicle.matrix() for camera in cameras}
    wrong = {name: pose for name, pose in matrices.items() if not _possible(pose)}
    # One program has written all of them. Its mistake shows in some of them only: the inverse of a
    # camera that looks to the right looks to the right.
    cause = _cause(matrices) if wrong else None
    if cause is not None:
        return [_axes_line(matrices, wrong, cause)]
    lines = []
    for name, pose in wrong.items():
        cause = _cause({name: pose})
        if cause is not None:
            lines.append(_axes_line([name], {name: pose}, cause))
        elif pose[2, 1] > -_UPRIGHT:
            lines.append(_axes_line([name], {name: pose}, f"{_AXES}; check its rotation"))
    return lines


def _possible(pose: FloatArray) -> bool:
    return bool(pose[2, 1] < -_UPRIGHT and pose[2, 3] > LOWEST_M)


def _cause(poses: dict[str, FloatArray]) -> str | None:
    """The reading that makes all cameras right, and stand most upright; None if none does."""
    tilts = {}
    for reading in _READINGS:
        meant = {name: reading.undone(pose) for name, pose in poses.items()}
        if all(_right(*item) for item in meant.items()):
            tilts[reading.cause] = round(float(np.mean([m[2, 1] for m in meant.values()])), 2)
    return min(tilts, key=lambda cause: tilts[cause]) if tilts else None


def _right(name: str, pose: FloatArray) -> bool:
    """Whether a camera stands upright, above the road, and looks where its name says."""
    upright = pose[2, 1] < -_CLEARLY_UPRIGHT and LOWEST_M < pose[2, 3] < HIGHEST_M
    return bool(upright) and not contradicts(name, pose[:2, 2])


def _axes_line(names: Iterable[str], wrong: dict[str, FloatArray], cause: str) -> str:
    name, pose = next(iter(wrong.items()))
    evidence = f"the y axis of {name} points to ({short(pose[:3, 1])}) of the vehicle"
    if pose[2, 1] < -_UPRIGHT:
        evidence = f"{name} would be {-pose[2, 3]:.2f} m below the road"
    return f"{camera_list(names)}: {evidence}; {cause}"


def short(values: FloatArray) -> str:
    """Numbers for a message."""
    return ", ".join(f"{value + 0:.2f}" for value in values)
