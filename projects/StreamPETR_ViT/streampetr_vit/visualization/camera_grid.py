"""Where the pictures of several cameras are placed: in rows, each from left to right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from streampetr_vit.structures import Camera, Rig
from streampetr_vit.visualization.drawing import Image, blank

# Where nuScenes' cameras are in the 2x3 picture: the front above, the back below, left to right.
GRID_ORDER = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)
GRID_COLUMNS = 3
GAP_PX = 4
MOST_COLUMNS = 4  # of a rig whose cameras are placed by where they look
SIDE_DEGREES = 100.0  # from ahead: a camera that looks to the side counts as one in front


def camera_grid(
    panels: Sequence[Image], camera_names: Sequence[str], gap_px: int = GAP_PX
) -> Image:
    """Lays pictures out in rows of three, front above back, by the names of nuScenes.

    Args:
        panels: N pictures of equal width; a row is as high as the highest of its pictures.
        camera_names: N names; those that nuScenes does not have keep their order, after the others.
        gap_px: dark space between the pictures.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    panel_of = dict(zip(camera_names, panels, strict=True))
    known = [name for name in GRID_ORDER if name in panel_of]
    ordered = [panel_of[n] for n in (*known, *(n for n in camera_names if n not in known))]
    rows = [ordered[k : k + GRID_COLUMNS] for k in range(0, len(ordered), GRID_COLUMNS)]
    return join_rows(rows, gap_px)


def rows_by_view(rig: Rig) -> list[list[Camera]]:
    """The cameras of a car in rows, by where they look.

    Those that look ahead or to the side come first, those that look back below. In each row the
    left side of the vehicle is on the left. nuScenes' cameras come as in `GRID_ORDER`.
    """
    angles = {camera.name: _degrees_from_ahead(camera) for camera in rig.cameras}
    front = [camera for camera in rig.cameras if abs(angles[camera.name]) <= SIDE_DEGREES]
    back = [camera for camera in rig.cameras if camera not in front]
    # Of two that look the same way, the left one comes first; sorting keeps that order.
    for row in (front, back):
        row.sort(key=lambda camera: -camera.camera_to_vehicle.translation_m[1])
    front.sort(key=lambda camera: -angles[camera.name])
    back.sort(key=lambda camera: angles[camera.name] % 360)
    return [*_short_rows(front), *_short_rows(back)]


def join_rows(rows: Sequence[Sequence[Image]], gap_px: int = GAP_PX) -> Image:
    """One picture of several. Short rows and low pictures are in the middle.

    Args:
        rows: from above, each from left to right.
        gap_px: dark space between the pictures.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    heights = [max(panel.shape[0] for panel in row) + gap_px for row in rows]
    widths = [sum(panel.shape[1] + gap_px for panel in row) for row in rows]
    grid = blank(sum(heights) - gap_px, max(widths) - gap_px)
    for number, row in enumerate(rows):
        left = (max(widths) - widths[number]) // 2
        for panel in row:
            height, width = panel.shape[:2]
            top = sum(heights[:number]) + (heights[number] - gap_px - height) // 2
            grid[top : top + height, left : left + width] = panel
            left += width + gap_px
    return grid


def _degrees_from_ahead(camera: Camera) -> int:
    """Direction of the optical axis seen from above, counter-clockwise from ahead."""
    x, y, _ = camera.camera_to_vehicle.rotation().apply([0.0, 0.0, 1.0])
    return round(math.degrees(math.atan2(y, x)))


def _short_rows(cameras: Sequence[Camera]) -> list[list[Camera]]:
    """Rows of about equal length."""
    count = math.ceil(len(cameras) / MOST_COLUMNS)
    return [list(row) for row in np.array_split(np.array(cameras, object), count)] if count else []
