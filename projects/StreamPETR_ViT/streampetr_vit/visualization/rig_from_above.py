"""The cameras of a rig from above: where they are, where they look. Forward is up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streampetr_vit.structures import Camera, Detections, Rig
from streampetr_vit.visualization.bird_eye_view import (
    VEHICLE_OUTLINE_M,
    draw_boxes_from_above,
    draw_rings,
)
from streampetr_vit.visualization.camera_view import TRUTH_STYLE
from streampetr_vit.visualization.colors import BACKGROUND_COLOR, EGO_COLOR, TEXT_COLOR, Color
from streampetr_vit.visualization.drawing import (
    FloatArray,
    Image,
    blank,
    draw_arrow,
    draw_line,
    draw_text,
    fill_polygon,
)

BOX_NAMES = ("box",)  # of the only label
_LEAST_RANGE_M = 5.0
_RING_SPACINGS_M = (2.0, 5.0, 10.0, 20.0)
_BOXES_RANGE_M = (10.0, 60.0)
_WEDGE_OPACITY = 0.13


def draw_places(rig: Rig, colors: Mapping[str, Color], size_px: int) -> Image:
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


def draw_boxes_of_rig(
    rig: Rig, colors: Mapping[str, Color], size_px: int, boxes: Detections
) -> Image:
    """Draws boxes over the fields of view.

    Args:
        rig, colors, size_px: see `draw_places`.
        boxes: on the CPU, in the vehicle frame, with labels of `BOX_NAMES`.

    Returns:
        (size_px, size_px, 3) uint8 RGB.
    """
    farthest = float(boxes.boxes[:, :2].abs().max()) if len(boxes) else 0.0
    view = _View(size_px, float(np.clip(1.1 * farthest + 3, *_BOXES_RANGE_M)))
    image = _background(rig, colors, view)
    draw_boxes_from_above(image, boxes, view.to_pixels, TRUTH_STYLE, BOX_NAMES)
    draw_text(image, "BOXES FROM ABOVE", (8, 18))
    return image


def _background(rig: Rig, colors: Mapping[str, Color], view: _View) -> Image:
    image = blank(view.size_px, view.size_px)
    for camera in rig.cameras:
        _draw_wedge(image, view, camera, colors[camera.name])
    draw_rings(image, view.range_m, _RING_SPACINGS_M)
    # Right and forward -> x and y of the vehicle.
    outline = view.pixels(VEHICLE_OUTLINE_M[:, ::-1] * (1, -1))
    for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        draw_line(image, start, end, EGO_COLOR, dash_px=4.0)
    return image


class _View:
    """From metres of the vehicle frame to pixels: x is up, y is left."""

    def __init__(self, size_px: int, range_m: float) -> None:
        self.size_px, self.range_m = size_px, range_m
        scale = size_px / (2 * range_m)  # pixels in a metre
        self.to_pixels = np.array([[0.0, -scale], [-scale, 0.0]])  # points are rows

    def pixels(self, points: FloatArray) -> FloatArray:
        """(..., 2) places of points (..., 2)."""
        return (self.size_px - 1) / 2 + points @ self.to_pixels


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
    arc = 3 * view.range_m * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    corners = view.pixels(pose[:2, 3] + np.concatenate(([[0.0, 0.0]], arc)))
    fill_polygon(image, corners, color, _WEDGE_OPACITY)
    for end in (corners[1], corners[-1]):
        draw_line(image, corners[0], end, color)


def _draw_camera(image: Image, view: _View, camera: Camera, color: Color) -> None:
    pose = camera.camera_to_vehicle.matrix()
    at, look = view.pixels(pose[:2, 3]), -pose[:2, 2][::-1]  # of the forward axis, in pixels
    tip = at + 34 * look
    draw_arrow(image, at, tip, color, 2)
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
