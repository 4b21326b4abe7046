"""The cameras of a rig from above: where they are, where they look. Forward is up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streampetr_vit.structures import Camera, Rig
from streampetr_vit.visualization.colors import (
    BACKGROUND_COLOR,
    EGO_COLOR,
    GRID_COLOR,
    TEXT_COLOR,
    TRUTH_COLOR,
    Color,
)
from streampetr_vit.visualization.drawing import (
    FloatArray,
    Image,
    draw_circle,
    draw_line,
    draw_text,
    fill_polygon,
)

_LEAST_RANGE_M = 5.0
_BOXES_RANGE_M = (10.0, 60.0)
_BOX_OUTLINE = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) / 2  # of the length and the width
# A car around its rear axle, metres: x forward, y left. Only to find one's way.
_CAR_OUTLINE_M = np.array([(-0.9, -0.9), (3.0, -0.9), (3.7, 0.0), (3.0, 0.9), (-0.9, 0.9)])
_WEDGE_OPACITY = 0.13


def draw_plan(rig: Rig, colors: Mapping[str, Color], size_px: int) -> Image:
    """Draws positions, directions and fields of view of cameras, and the axes of the frames.

    Args:
        rig: the cameras, as pinhole cameras.
        colors: of each camera.
        size_px: width and height of the picture.

    Returns:
        (size_px, size_px, 3) uint8 RGB.
    """
    places = np.stack([camera.camera_to_vehicle.translation_m[:2] for camera in rig.cameras])
    view = _View(size_px, max(_LEAST_RANGE_M, 1.6 * float(np.abs(places).max())))
    image = _background(rig, colors, view)
    _draw_axes(image, view, np.eye(4), "vehicle")
    if rig.reference_to_vehicle is not None:
        _draw_axes(image, view, rig.reference_to_vehicle.matrix(), "reference")
    for camera in rig.cameras:
        _draw_camera(image, view, camera, colors[camera.name])
    draw_text(image, "CAMERAS FROM ABOVE", (8, 18))
    return image


def draw_boxes_plan(
    rig: Rig, colors: Mapping[str, Color], size_px: int, boxes: FloatArray
) -> Image:
    """Draws boxes over the fields of view.

    Args:
        rig, colors, size_px: see `draw_plan`.
        boxes: (n, 7) centre, size and yaw in the vehicle frame.

    Returns:
        (size_px, size_px, 3) uint8 RGB.
    """
    farthest = float(np.abs(boxes[:, :2]).max(initial=0.0))
    view = _View(size_px, float(np.clip(1.1 * farthest + 3, *_BOXES_RANGE_M)))
    image = _background(rig, colors, view)
    for box in boxes:
        _draw_box(image, view, box)
    draw_text(image, "BOXES FROM ABOVE", (8, 18))
    return image


def _background(rig: Rig, colors: Mapping[str, Color], view: _View) -> Image:
    image = np.empty((view.size_px, view.size_px, 3), np.uint8)
    image[:] = BACKGROUND_COLOR
    for camera in rig.cameras:
        _draw_wedge(image, view, camera, colors[camera.name])
    _draw_rings(image, view)
    for start, end in _sides(view.pixels(_CAR_OUTLINE_M)):
        draw_line(image, start, end, EGO_COLOR, 1, 4.0)
    return image


class _View:
    """From metres of the vehicle frame to pixels: x is up, y is left."""

    def __init__(self, size_px: int, reach_m: float):
        self.size_px, self.reach_m = size_px, reach_m
        self.middle = (size_px - 1) / 2
        self.scale = size_px / (2 * reach_m)  # pixels in a metre

    def pixels(self, points: FloatArray) -> FloatArray:
        return self.middle - self.scale * np.asarray(points)[..., [1, 0]]


def _sides(points: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    return list(zip(points, np.roll(points, -1, axis=0), strict=True))


def _draw_rings(image: Image, view: _View) -> None:
    step = next(step for step in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if view.reach_m / step <= 7)
    origin = view.pixels(np.zeros(2))
    for radius in np.arange(step, 1.4 * view.reach_m, step):
        draw_circle(image, origin, radius * view.scale, GRID_COLOR)
        if radius < view.reach_m:
            place = (view.middle + 4, view.middle + radius * view.scale - 3)
            draw_text(image, f"{radius:.0f} m", place, scale=0.36)


def _draw_wedge(image: Image, view: _View, camera: Camera, color: Color) -> None:
    """The part of the plane that a camera sees."""
    pose = camera.camera_to_vehicle.matrix()
    row = camera.intrinsics[1, 2]
    sides = np.array([[0.0, row, 1], [camera.width, row, 1]])
    rays = (pose[:3, :3] @ np.linalg.solve(camera.intrinsics, sides.T)).T[:, :2]  # left, right
    left, right = np.arctan2(rays[:, 1], rays[:, 0])
    across = (left - right) % (2 * np.pi)
    if not 0 < across < np.pi:  # it looks down, or its pose is wrong
        return
    angles = right + across * np.linspace(0, 1, 25)
    arc = 3 * view.reach_m * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    corners = view.pixels(pose[:2, 3] + np.concatenate(([[0.0, 0.0]], arc)))
    fill_polygon(image, corners, color, _WEDGE_OPACITY)
    for end in (corners[1], corners[-1]):
        draw_line(image, corners[0], end, color)


def _draw_camera(image: Image, view: _View, camera: Camera, color: Color) -> None:
    pose = camera.camera_to_vehicle.matrix()
    at, look = view.pixels(pose[:2, 3]), -pose[:2, 2][::-1]  # of the forward axis, in pixels
    tip = at + 34 * look
    draw_line(image, at, tip, color, 2)
    across = np.array([-look[1], look[0]])
    for side in (-1, 1):
        draw_line(image, tip, tip - 8 * look + side * 5 * across, color, 2)
    body = at + 5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    fill_polygon(image, body, color)
    # Beyond the tip: to its right, to its left, or around it.
    width = 8.0 * len(camera.name)
    left, top = at + 48 * look + (width * (np.clip(2 * look[0], -1, 1) - 1) / 2, 4)
    draw_text(image, camera.name, (left, top), color, 0.4, BACKGROUND_COLOR)


def _draw_axes(image: Image, view: _View, pose: FloatArray, name: str) -> None:
    """The x and y axes of a frame, of 28 pixels, and its name."""
    origin = view.pixels(pose[:2, 3])
    for axis, letter in ((0, "x"), (1, "y")):
        tip = origin - 28 * pose[:2, axis][::-1]
        draw_line(image, origin, tip, TEXT_COLOR, 2)
        label = origin - 38 * pose[:2, axis][::-1]
        draw_text(image, letter, (label[0] - 4, label[1] + 4), TEXT_COLOR, 0.4)
    draw_text(image, name, (origin[0] + 6, origin[1] + 14), TEXT_COLOR, 0.36)


def _draw_box(image: Image, view: _View, box: FloatArray) -> None:
    cos, sin = np.cos(box[6]), np.sin(box[6])
    outline = _BOX_OUTLINE * box[3:5] @ np.array([[cos, sin], [-sin, cos]]) + box[:2]
    for start, end in _sides(view.pixels(outline)):
        draw_line(image, start, end, TRUTH_COLOR)
    front = box[:2] + 0.5 * box[3] * np.array([cos, sin])
    draw_line(image, view.pixels(box[:2]), view.pixels(front), TRUTH_COLOR)
