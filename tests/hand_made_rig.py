"""Rigs of tests: nuScenes' six cameras, and plain values of one camera."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from streampetr_vit.structures import Camera, Rig

# x, y, z in metres, yaw in degrees, focal length in pixels. Source: nuScenes, rounded.
SIX = {
    "CAM_FRONT": (1.70, 0.0, 1.51, 0, 1266),
    "CAM_FRONT_RIGHT": (1.55, -0.49, 1.50, -55, 1260),
    "CAM_FRONT_LEFT": (1.52, 0.49, 1.51, 55, 1272),
    "CAM_BACK": (0.03, 0.0, 1.58, 180, 809),
    "CAM_BACK_LEFT": (1.04, 0.48, 1.59, 110, 1257),
    "CAM_BACK_RIGHT": (1.01, -0.48, 1.56, -110, 1260),
}


def looking(yaw_deg: float, pitch_deg: float = 0.0, place: Any = (1.7, 0.0, 1.5)) -> np.ndarray:
    """(4, 4) camera_to_vehicle of a camera that looks along a yaw, down by a pitch."""
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    level = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    forward = math.cos(pitch) * level - (0, 0, math.sin(pitch))
    down = -math.sin(pitch) * level - (0, 0, math.cos(pitch))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack((np.cross(down, forward), down, forward), axis=1)
    matrix[:3, 3] = place
    return matrix


def intrinsics(focal: float = 1266.0, center: tuple[float, float] = (816.0, 491.0)) -> np.ndarray:
    """(3, 3) of pictures of 1600x900."""
    return np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], dtype=float)


def six_cameras(pitch_deg: float = 0.0) -> Rig:
    """The rig of nuScenes, rounded."""
    return Rig(
        [
            Camera(name, 1600, 900, intrinsics(focal), looking(yaw, pitch_deg, place))
            for name, (*place, yaw, focal) in SIX.items()
        ]
    )


def plain_camera(**changes: Any) -> dict[str, Any]:
    """What a file says of one camera."""
    values = dict(
        width=1600,
        height=900,
        intrinsics=intrinsics().tolist(),
        camera_to_vehicle=looking(0).tolist(),
    )
    return {**values, **changes}
