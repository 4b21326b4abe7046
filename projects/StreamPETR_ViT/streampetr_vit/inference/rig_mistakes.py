"""Tells the classic mistakes of calibrations: numbers that are possible, and wrong.

What no camera can have is refused where a rig is made (`structures.camera`). Here are heuristics:
a strange rig may be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.structures import Camera, Pose, Rig
from streampetr_vit.structures.lens_checks import usual_size
from streampetr_vit.texts import name_list

FloatArray = NDArray[np.float64]

LOWEST_M, HIGHEST_M = 0.05, 6.0  # of cameras above the road, robots and lorries included
_REFERENCE_HEIGHTS_M = (0.5, 4.0)
_UPRIGHT = 0.26  # sine of 15 degrees: less, and the y axis of a camera does not point down
_CLEARLY_UPRIGHT = 0.77  # sine of 50 degrees
_ASIDE = 0.3  # part of a viewing direction that contradicts a camera's name
_SAME_PLACE_M = 0.01
# Turn of cameras, in degrees, on a vehicle of other axes -> those axes.
_VEHICLE_AXES = {
    90: "x right, y forward, as nuScenes' lidar has them",
    -90: "x left, y backward",
    180: "x backward, y right",
}


@dataclass(frozen=True)
class _Reading:
    """What a wrong camera_to_vehicle may be: how it is made right, and what to say."""

    turn: Sequence[Sequence[int]]  # columns: axes of the camera in the axes that were used
    inverse: bool
    cause: str


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


def mistakes_of_rig(rig: Rig) -> list[str]:
    """What looks wrong with a rig, a line for each mistake with its cameras, numbers and fix."""
    found = _axes(rig.cameras)
    # Where the poses are wrong as a whole, heights and directions say the same once more.
    if not found:
        found = _other_vehicle_axes(rig.cameras)
    if not found:
        found = [*_heights(rig.cameras), *_directions(rig.cameras), *_one_place(rig.cameras)]
    found += [line for camera in rig.cameras for line in _intrinsics(camera)]
    if rig.reference_to_vehicle is not None:
        found += _reference(rig.reference_to_vehicle)
    return found


def _axes(cameras: Sequence[Camera]) -> list[str]:
    """Inverse poses and axes of other conventions."""
    matrices = {camera.name: camera.camera_to_vehicle.matrix() for camera in cameras}
    wrong = {name: pose for name, pose in matrices.items() if not _possible(pose)}
    for reading in _READINGS:
        # One program has written all of them. Its mistake shows in some of them only: the inverse
        # of a camera that looks to the right looks to the right.
        if wrong and all(_explains(reading, *item) for item in matrices.items()):
            return [_axes_line(matrices, wrong, reading.cause)]
    lines = []
    for name, pose in wrong.items():
        causes = [r.cause for r in _READINGS if _explains(r, name, pose)]
        if causes:
            lines.append(_axes_line([name], {name: pose}, causes[0]))
        elif pose[2, 1] > -_UPRIGHT:
            lines.append(_axes_line([name], {name: pose}, f"{_AXES}; check its rotation"))
    return lines


def _possible(pose: FloatArray) -> bool:
    return bool(pose[2, 1] < -_UPRIGHT and pose[2, 3] > LOWEST_M)


def _explains(reading: _Reading, name: str, pose: FloatArray) -> bool:
    """Whether a camera stands upright, above the road, and looks where its name says."""
    turn = np.eye(4)
    turn[:3, :3] = reading.turn
    # The pose that was meant, in the axes that were used, then in those of a camera.
    meant = (np.linalg.inv(pose) if reading.inverse else pose) @ turn
    upright = meant[2, 1] < -_CLEARLY_UPRIGHT and LOWEST_M < meant[2, 3] < HIGHEST_M
    return bool(upright) and not _contradicts(name, meant[:2, 2])


def _axes_line(names: Iterable[str], wrong: dict[str, FloatArray], cause: str) -> str:
    name, pose = next(iter(wrong.items()))
    evidence = f"the y axis of {name} points to ({_numbers(pose[:3, 1])}) of the vehicle"
    if pose[2, 1] < -_UPRIGHT:
        evidence = f"{name} would be {-pose[2, 3]:.2f} m below the road"
    return f"{_cameras(names)}: {evidence}; {cause}"


def _heights(cameras: Sequence[Camera]) -> list[str]:
    heights = {camera.name: float(camera.camera_to_vehicle.translation_m[2]) for camera in cameras}
    lines = []
    for wrong, where in (
        ([name for name, z in heights.items() if z <= LOWEST_M], "on or below the road"),
        ([name for name, z in heights.items() if z >= HIGHEST_M], "far above a vehicle"),
    ):
        if wrong:
            given = ", ".join(f"{heights[name]:.2f}" for name in wrong[:6])
            lines.append(
                f"{_cameras(wrong)}: z = {given} m is {where}: the vehicle's origin is on the "
                "ground below the rear axle, z points up; move the poses to it"
            )
    return lines


def _other_vehicle_axes(cameras: Sequence[Camera]) -> list[str]:
    """Cameras that all look a quarter or half a turn from what their names say."""
    looks = {c.name: c.camera_to_vehicle.matrix()[:2, 2] for c in cameras if _parts(c.name)}
    wrong = [name for name, look in looks.items() if _contradicts(name, look)]
    for degrees, axes in _VEHICLE_AXES.items() if len(wrong) > 1 else ():
        if not any(_contradicts(name, _turned(look, -degrees)) for name, look in looks.items()):
            return [
                f"{_cameras(wrong)}: they look {degrees} degrees (counter-clockwise) from what "
                f"their names say; the vehicle's axes look like {axes}: give poses on a vehicle "
                "with x forward, y left, z up"
            ]
    return []


def _directions(cameras: Sequence[Camera]) -> list[str]:
    """Cameras that look elsewhere than their names say."""
    looks = {c.name: c.camera_to_vehicle.matrix()[:2, 2] for c in cameras}
    return [
        f"camera {name}: it looks {np.degrees(np.arctan2(look[1], look[0])):.0f} degrees from "
        "straight ahead (counter-clockwise), not where its name says: check its yaw, and whether "
        "cameras were mixed up"
        for name, look in looks.items()
        if _contradicts(name, look)
    ]


def _contradicts(name: str, look: FloatArray) -> bool:
    """Whether a name has a word for another direction than (x forward, y left)."""
    length = float(np.hypot(*look))
    if length < _ASIDE:  # it looks down to the road
        return False
    parts, (ahead, left) = _parts(name), look / length
    fore = ("front" in parts or "forward" in parts) - ("back" in parts or "rear" in parts)
    side = ("left" in parts) - ("right" in parts)
    # With one word for the length of the car alone it is not to the side. "left" and "right" may
    # also be a stereo pair.
    least = _ASIDE if side == 0 else -_ASIDE
    return bool((fore and fore * ahead < least) or (side and side * left < -_ASIDE))


def _parts(name: str) -> set[str]:
    return set(re.findall("front|forward|back|rear|left|right", name.lower()))


def _turned(look: FloatArray, degrees: float) -> FloatArray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([cos * look[0] - sin * look[1], sin * look[0] + cos * look[1]])


def _one_place(cameras: Sequence[Camera]) -> list[str]:
    places = np.stack([camera.camera_to_vehicle.translation_m for camera in cameras])
    if len(cameras) == 1 or np.ptp(places, axis=0).max() > _SAME_PLACE_M:
        return []
    names = [camera.name for camera in cameras]
    return [
        f"{_cameras(names)}: all are at ({_numbers(places[0])}): give each its own place, in metres"
    ]


def _intrinsics(camera: Camera) -> list[str]:
    size = np.array([camera.width, camera.height])
    point = camera.intrinsics[:2, 2]
    parts = 2 * point / size  # 1: in the middle
    if abs(np.log(parts[0] / parts[1])) > 0.12 or not (parts.max() < 0.8 or parts.min() > 1.2):
        return []
    return [
        f"camera {camera.name}: the principal point ({_numbers(point)}) is not near the middle of "
        f"{camera.width}x{camera.height} pictures: it looks like that of a "
        f"{usual_size(point, size)} picture; give the intrinsics of the pictures that are read"
    ]


def _reference(pose: Pose) -> list[str]:
    x, y, z = pose.translation_m
    up = pose.matrix()[2, 2]
    lowest, highest = _REFERENCE_HEIGHTS_M
    if not lowest < z < highest:
        return [
            f"reference_to_vehicle: it is {z:.2f} m above the road, and networks were trained in "
            "the frame of a lidar on a roof (nuScenes: 1.84 m): leave it out, or give such a place"
        ]
    if up < 0.9:
        return [f"reference_to_vehicle: its z axis points {up:.2f} upwards, not 1: let it be level"]
    return []


def _cameras(names: Iterable[str]) -> str:
    names = list(names)
    return f"camera{'s' if len(names) > 1 else ''} {name_list(names)}"


def _numbers(values: FloatArray) -> str:
    return ", ".join(f"{value + 0:.2f}" for value in values)
