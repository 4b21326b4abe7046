"""The road in a camera's picture, as the calibration says: a grid, distances, the horizon."""

from __future__ import annotations

import cv2
import numpy as np

from streampetr_vit.visualization.camera_view import NEAR_M, cut_at_near_plane
from streampetr_vit.visualization.colors import BACKGROUND_COLOR, Color
from streampetr_vit.visualization.drawing import FloatArray, Image, draw_line, draw_text

GRID_COLOR: Color = (225, 232, 240)
RING_COLOR: Color = (64, 224, 208)
HORIZON_COLOR: Color = (255, 92, 190)
FORWARD_COLOR: Color = (255, 159, 28)

GRID_STEP_M, FORWARD_M = 5.0, 40.0
_GRID_RANGE_M = 30.0  # farther lines run into each other
_RINGS_M = (5.0, 10.0, 20.0, 50.0)
_GRID_OPACITY = 0.5
_LABEL_PX = 16  # height of a label and the gap to the next
_FAR_M = 1e6  # the horizon is the road without end


def draw_road(image: Image, vehicle_to_image: FloatArray, look: FloatArray) -> None:
    """Draws the plane z = 0 of the vehicle, distances from its origin, horizon and way ahead.

    Args:
        image: (H, W, 3) uint8 RGB, drawn on.
        vehicle_to_image: (4, 4) of this very picture.
        look: (2,) direction along the vehicle's x and y in which distances are written.
    """
    _draw_grid(image, vehicle_to_image)
    angles = np.radians(np.arange(0, 361, 3))
    circle = np.stack((np.cos(angles), np.sin(angles), np.zeros_like(angles)), axis=1)
    for radius in _RINGS_M:
        _draw_chain(image, radius * circle, vehicle_to_image, RING_COLOR)
    _draw_chain(image, _FAR_M * circle, vehicle_to_image, HORIZON_COLOR, dash_px=6)
    tip = np.array([FORWARD_M, 0, 0])
    for chain in ([(0, 0, 0), tip], [tip - (4, 1.2, 0), tip, tip - (4, -1.2, 0)]):
        _draw_chain(image, np.array(chain), vehicle_to_image, FORWARD_COLOR, 2)
    _draw_distances(image, vehicle_to_image, look)


def _draw_grid(image: Image, vehicle_to_image: FloatArray) -> None:
    lines = image.copy()
    for at in np.arange(-_GRID_RANGE_M, _GRID_RANGE_M + 1, GRID_STEP_M):
        across = np.array([[at, -_GRID_RANGE_M, 0], [at, _GRID_RANGE_M, 0]])
        for line in (across, across[:, [1, 0, 2]]):
            _draw_chain(lines, line, vehicle_to_image, GRID_COLOR)
    image[:] = cv2.addWeighted(lines, _GRID_OPACITY, image, 1 - _GRID_OPACITY, 0)


def _draw_distances(image: Image, vehicle_to_image: FloatArray, look: FloatArray) -> None:
    height, width = image.shape[:2]
    direction = look / max(float(np.hypot(*look)), 1e-9)
    last = np.inf  # row of the label before
    for radius in _RINGS_M:
        point = np.array([*radius * direction, 0.0])
        u, v, depth = vehicle_to_image[:3, :3] @ point + vehicle_to_image[:3, 3]
        if depth <= NEAR_M or not (0 <= u < depth * width and 0 <= v < depth * height):
            continue
        row = v / depth
        if abs(last - row) >= _LABEL_PX:
            place = (u / depth + 3, row - 3)
            draw_text(image, f"{radius:.0f} m", place, RING_COLOR, 0.4, BACKGROUND_COLOR)
            last = row


def _draw_chain(
    image: Image,
    points: FloatArray,
    vehicle_to_image: FloatArray,
    color: Color,
    thickness: int = 1,
    dash_px: float = 0.0,
) -> None:
    """Draws lines from point to point, (k, 3) of the vehicle frame."""
    seen = points @ vehicle_to_image[:3, :3].T + vehicle_to_image[:3, 3]  # (k, 3)
    for start, end in zip(seen[:-1], seen[1:], strict=True):
        cut = cut_at_near_plane(start, end)
        if cut is not None:
            draw_line(image, *cut, color, thickness, dash_px)
