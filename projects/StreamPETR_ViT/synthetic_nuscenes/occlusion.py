"""In which order boxes on the ground hide one another."""

from __future__ import annotations

import numpy as np

_TOUCH_M = 1e-6


def footprint_corners(boxes: np.ndarray) -> np.ndarray:
    """Corners of boxes on the ground.

    Args:
        boxes: (n, 7) x, y, z, l, w, h, yaw.

    Returns:
        (n, 4, 2), around the box.
    """
    # (n, 1, 2) * (4, 2) -> (n, 4, 2)
    signs = np.array([[0.5, 0.5], [0.5, -0.5], [-0.5, -0.5], [-0.5, 0.5]])
    local = boxes[:, None, 3:5] * signs
    cos, sin = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    return np.stack((x, y), axis=-1) + boxes[:, None, :2]


def _in_box_frames(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Points (..., n or 1, 2) relative to each of n boxes: (2, ..., n), along and across."""
    offset = points - boxes[:, :2]
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    along = cos * offset[..., 0] + sin * offset[..., 1]
    return np.stack((along, -sin * offset[..., 0] + cos * offset[..., 1]))


def _must_precede(boxes: np.ndarray, eye_m: np.ndarray) -> np.ndarray:
    """(n, n) bool: box i has to be painted before box j."""
    corners = _in_box_frames(footprint_corners(boxes)[:, :, None], boxes)  # (2, n, 4, n)
    eye = _in_box_frames(eye_m[None, :2], boxes)  # (2, n)
    before = np.zeros((len(boxes), len(boxes)), dtype=bool)
    # If an edge line of a footprint separates two boxes, only the one on the eye's side of the
    # line can hide the other.
    for axis in (0, 1):
        half = boxes[:, 3 + axis] / 2
        for sign in (1, -1):  # the two edge lines of box j across that axis
            outside = (sign * corners[axis]).min(axis=1) >= half - _TOUCH_M
            eye_outside = sign * eye[axis] > half
            before |= outside & ~eye_outside
            before |= (outside & eye_outside).T
    # Both directions hold only where no line of sight meets both boxes: no constraint then.
    return before & ~before.T


def paint_order(boxes: np.ndarray, eye_m: np.ndarray) -> np.ndarray:
    """Sorts boxes from far to near; exact where footprints do not overlap.

    Sorting by distance alone is wrong for long vehicles.

    Args:
        boxes: (n, 7) x, y, z, l, w, h, yaw.
        eye_m: (2,) or (3,) position of the camera, same frame.

    Returns:
        (n,) indices, the box to paint first in front.
    """
    before = _must_precede(boxes, np.asarray(eye_m))
    waiting_for = before.sum(axis=0).astype(float)
    priority = np.hypot(*(boxes[:, :2] - np.asarray(eye_m)[:2]).T)
    order = np.empty(len(boxes), dtype=int)
    for k in range(len(boxes)):
        # The farthest box that waits for no other. Cycles are rare: they are cut at the box that
        # waits for fewest.
        i = int(np.argmax(priority - 1e6 * waiting_for))
        order[k] = i
        priority[i] = -np.inf
        waiting_for -= before[i]  # what came after i no longer waits for it
    return order
