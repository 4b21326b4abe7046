"""Tells the classic mistakes of calibrations: numbers that are possible, and wrong.

What no camera can have is refused where a rig is made (`structures.camera`). Here are heuristics:
a strange rig may be right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.inference.checks.camera_axes import (
    HIGHEST_M,
    LOWEST_M,
    mistakes_of_axes,
    short,
)
from streampetr_vit.inference.checks.camera_names import camera_list, contradicts, directions_in
from streampetr_vit.structures import Camera, Pose, Rig
from streampetr_vit.structures.lens_checks import usual_size

FloatArray = NDArray[np.float64]

_REFERENCE_HEIGHTS_M = (0.5, 4.0)
_SAME_PLACE_M = 0.01
# Turn of cameras, in degrees, on a vehicle of other axes -> those axes.
_VEHICLE_AXES = {
    90: "x right, y forward, as nuScenes' lidar has them",
    -90: "x left, y backward",
    180: "x backward, y right",
}


def mistakes_of_rig(rig: Rig) -> list[str]:
    """What looks wrong with a rig, a line for each mistake with its cameras, numbers and fix."""
    found = mistakes_of_axes(rig.cameras)
    # Where the poses are wrong as a whole, heights and directions say the same once more.
    if not found:
        found = _other_vehicle_axes(rig.cameras)
    if not found:
        found = [*_heights(rig.cameras), *_directions(rig.cameras), *_one_place(rig.cameras)]
    found += [line for camera in rig.cameras for line in _intrinsics(camera)]
    if rig.reference_to_vehicle is not None:
        found += _reference(rig.reference_to_vehicle)
    return found


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
                f"{camera_list(wrong)}: z = {given} m is {where}: the vehicle's origin is on the "
                "ground below the rear axle, z points up; move the poses to it"
            )
    return lines


def _other_vehicle_axes(cameras: Sequence[Camera]) -> list[str]:
    """Cameras that all look a quarter or half a turn from what their names say."""
    looks = {c.name: c.camera_to_vehicle.matrix()[:2, 2] for c in cameras if directions_in(c.name)}
    wrong = [name for name, look in looks.items() if contradicts(name, look)]
    for degrees, axes in _VEHICLE_AXES.items() if len(wrong) > 1 else ():
        if not any(contradicts(name, _turned(look, -degrees)) for name, look in looks.items()):
            return [
                f"{camera_list(wrong)}: they look {degrees} degrees (counter-clockwise) from what "
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
        if contradicts(name, look)
    ]


def _turned(look: FloatArray, degrees: float) -> FloatArray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([cos * look[0] - sin * look[1], sin * look[0] + cos * look[1]])


def _one_place(cameras: Sequence[Camera]) -> list[str]:
    places = np.stack([camera.camera_to_vehicle.translation_m for camera in cameras])
    if len(cameras) == 1 or np.ptp(places, axis=0).max() > _SAME_PLACE_M:
        return []
    names = [camera.name for camera in cameras]
    return [
        f"{camera_list(names)}: all are at ({short(places[0])}): give each its own place, in metres"
    ]


def _intrinsics(camera: Camera) -> list[str]:
    size = np.array([camera.width, camera.height])
    point = camera.intrinsics[:2, 2]
    parts = 2 * point / size  # 1: in the middle
    if abs(np.log(parts[0] / parts[1])) > 0.12 or not (parts.max() < 0.8 or parts.min() > 1.2):
        return []
    return [
        f"camera {camera.name}: the principal point ({short(point)}) is not near the middle of "
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
