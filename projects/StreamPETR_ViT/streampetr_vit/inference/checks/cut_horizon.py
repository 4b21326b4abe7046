"""Whether the crop that brings pictures to the network's input leaves the horizon in them."""

from __future__ import annotations

import numpy as np

from streampetr_vit.data.transforms import ImageDraw
from streampetr_vit.structures import Camera


def cut_horizon(camera: Camera, draw: ImageDraw) -> str | None:
    """What to tell of a camera whose horizon is in its pictures, and not in those of the network.

    The network's input is wide, and the crop takes the road and leaves the sky. Of a square picture
    that may be less than half, and nothing of what is far away.

    Args:
        camera: without distortion.
        draw: the resize and crop of its pictures.
    """
    row = _horizon_row(camera)
    height, width = draw.final_size
    if row is None or row < 0 or row * draw.scale >= draw.crop_origin[1]:
        return None
    seen = height / draw.resized_size[1]
    return (
        f"camera {camera.name}: of its pictures of {camera.width}x{camera.height} the network sees "
        f"the lowest {seen:.0%}, and the horizon, in row {row:.0f}, is above: what is far away "
        f"is not found. Cut your pictures so that they are {width / height:.3g} times as wide as "
        "high, with the horizon in the upper half, and give the size and intrinsics of those"
    )


def _horizon_row(camera: Camera) -> float | None:
    """Where the camera sees what is infinitely far ahead of it; None if it looks up or down."""
    turn = camera.camera_to_vehicle.rotation().as_matrix()
    ahead = turn[:, 2] * (1, 1, 0)
    if np.linalg.norm(ahead) < 0.5:  # steeper than 60 degrees
        return None
    _, y, z = turn.T @ ahead
    return float(camera.intrinsics[1, 1] * y / z + camera.intrinsics[1, 2])
