"""3D boxes as plain (n, 9) tensors, and the few operations the project needs on them.

A row is (x, y, z, l, w, h, yaw, vx, vy): the gravity centre in metres, length along the heading,
width, height, yaw counter-clockwise about +z from +x in radians, velocity in metres per second.
The frame is the lidar frame of the current sample unless a name says otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def boxes_from_bottom_center(boxes: Tensor) -> Tensor:
    """A copy of boxes (..., 7 or more), z moved from the bottom face to the gravity centre."""
    moved = boxes.clone()
    moved[..., 2] += 0.5 * boxes[..., 5]  # column 2 is z, column 5 the height
    return moved


def boxes_to_bottom_center(boxes: Tensor) -> Tensor:
    """Inverse of `boxes_from_bottom_center`."""
    moved = boxes.clone()
    moved[..., 2] -= 0.5 * boxes[..., 5]
    return moved


def box_corners(boxes: Tensor, rotation: Tensor | None = None) -> Tensor:
    """Corners (n, 8, 3) of boxes (n, 6 or more), gravity centre, in the frame of the boxes.

    Args:
        boxes: turned by their yaw, unless `rotation` is given.
        rotation: (n, 3, 3), box -> frame, for boxes that are tilted.
    """
    # Corner k has its signs along (length, width, height) from the bits of k, most significant
    # first: 0 is rear-right-bottom, 7 is front-left-top.
    signs = torch.tensor(
        [[i, j, k] for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (-0.5, 0.5)],
        dtype=boxes.dtype,
        device=boxes.device,
    )
    local = boxes[:, None, 3:6] * signs  # (n, 8, 3)
    if rotation is not None:
        turned = (rotation[:, None] * local[..., None, :]).sum(-1)  # (n, 1, 3, 3), (n, 8, 1, 3)
        return boxes[:, None, :3] + turned
    cos, sin = boxes[:, 6].cos()[:, None], boxes[:, 6].sin()[:, None]
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    return torch.stack((x, y, local[..., 2]), dim=-1) + boxes[:, None, :3]  # (n, 8, 3) + (n, 1, 3)


def rotate_scale_translate_boxes(
    boxes: Tensor, yaw_rad: float, scale: float = 1.0, translation_m: Tensor | None = None
) -> Tensor:
    """A copy of boxes (n, 9), turned by the yaw, then scaled, then moved by a translation (3,)."""
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    moved = boxes.clone()
    for x, y in ((0, 1), (7, 8)):  # the centre, and the velocity: a direction of the scene too
        # Written out: a matrix product may be rounded, see `modeling.ops.geometry`.
        moved[:, x] = cos * boxes[:, x] - sin * boxes[:, y]
        moved[:, y] = sin * boxes[:, x] + cos * boxes[:, y]
    moved[:, 6] += yaw_rad  # not wrapped: the losses read its sine and cosine
    moved[:, :6] *= scale  # centre and size
    moved[:, 7:9] *= scale  # velocity
    if translation_m is not None:
        moved[:, :3] += translation_m.to(boxes)
    return moved
