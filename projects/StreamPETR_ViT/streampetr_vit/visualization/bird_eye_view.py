"""The scene from above: forward is up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampetr_vit.structures import Detections, box_corners
from streampetr_vit.visualization.camera_view import BoxStyle, with_styles
from streampetr_vit.visualization.colors import EGO_COLOR, GRID_COLOR, class_colors
from streampetr_vit.visualization.drawing import (
    FloatArray,
    Image,
    blank,
    draw_arrow,
    draw_circle,
    draw_line,
    draw_text,
    fill_polygon,
)

RING_SPACINGS_M = (10.0, 20.0, 50.0, 100.0, 200.0)
RING_SPACING_PX = 28
# Slower objects get no arrow: it would be shorter than the box's own heading line.
LEAST_SPEED_MPS = 0.5
# The outline of a car, metres: right, forward. Around the lidar of nuScenes, and around the middle
# of the rear axle.
LIDAR_OUTLINE_M = np.array([(-0.9, -2.9), (0.9, -2.9), (0.9, 1.3), (0.0, 2.2), (-0.9, 1.3)])
VEHICLE_OUTLINE_M = np.array([(-0.9, -0.8), (0.9, -0.8), (0.9, 2.6), (0.0, 3.4), (-0.9, 2.6)])
_FLOOR = (0, 2, 6, 4)  # numbers of `box_corners`: rear right, rear left, front left, front right


def draw_bird_eye_view(
    class_names: Sequence[str],
    predictions: Detections | None = None,
    truth: Detections | None = None,
    range_m: float = 51.2,
    size_px: int = 720,
    forward: tuple[float, float] = (0.0, 1.0),
    outline_m: FloatArray = LIDAR_OUTLINE_M,
) -> Image:
    """Draws range rings, the ego vehicle, and boxes with heading and velocity.

    Args:
        class_names: names of the labels.
        predictions: boxes in the colours of their classes.
        truth: dashed white.
        range_m: half the width of the square that is drawn.
        size_px: width and height of the picture.
        forward: the vehicle's forward direction, (x, y) in the boxes' frame, a unit vector. In
            nuScenes it is y.
        outline_m: (k, 2) outline of the vehicle around the origin of the boxes' frame, to the
            right and forward.

    Returns:
        (size_px, size_px, 3) uint8 RGB.
    """
    image = blank(size_px, size_px)
    middle = (size_px - 1) / 2
    # Metres to the right and forward -> pixels: rows of a picture count downwards.
    scale = np.array([1.0, -1.0]) * size_px / (2 * range_m)
    for axis in np.eye(2):
        draw_line(image, middle - axis * size_px / 2, middle + axis * size_px / 2, GRID_COLOR)
    draw_rings(image, range_m)
    # Columns: right and forward in the boxes' frame. Points are rows: (k, 2) @ (2, 2).
    to_pixels = np.array([[forward[1], forward[0]], [-forward[0], forward[1]]]) * scale
    for detections, style in with_styles(predictions, truth):
        draw_boxes_from_above(image, detections, to_pixels, style, class_names)
    fill_polygon(image, middle + outline_m * scale, EGO_COLOR)
    draw_text(image, "BIRD'S-EYE VIEW", (8, 18))
    return image


def draw_rings(image: Image, range_m: float, spacings_m: Sequence[float] = RING_SPACINGS_M) -> None:
    """Draws circles around the middle of a square picture, with their radii.

    Args:
        image: (S, S, 3), drawn on.
        range_m: half its width.
        spacings_m: of which the first is taken that leaves room for the numbers.
    """
    size_px = len(image)
    middle = (size_px - 1) / 2
    wide = [step for step in spacings_m if step * size_px >= RING_SPACING_PX * 2 * range_m]
    spacing_m = (wide or spacings_m[-1:])[0]
    # The corners of the square are sqrt(2) times its range away.
    for radius_m in np.arange(spacing_m, 1.4 * range_m, spacing_m):
        radius = radius_m * size_px / (2 * range_m)
        draw_circle(image, np.array([middle, middle]), radius, GRID_COLOR)
        if radius_m < range_m:
            draw_text(image, f"{radius_m:.0f} m", (middle + 4, middle - radius - 3), scale=0.36)


def draw_boxes_from_above(
    image: Image,
    detections: Detections,
    to_pixels: FloatArray,
    style: BoxStyle,
    class_names: Sequence[str],
) -> None:
    """Draws boxes around the middle of a square picture.

    Args:
        image: (S, S, 3) uint8 RGB, drawn on.
        detections: on the CPU, in the frame whose origin is in the middle.
        to_pixels: (2, 2) from x and y of that frame, as a row, to pixels.
        style: how they are drawn.
        class_names: names of the labels.
    """
    colors = class_colors(class_names)
    middle = (len(image) - 1) / 2
    boxes = detections.boxes.double()
    floors = box_corners(boxes)[:, _FLOOR, :2].numpy()  # (n, 8, 3) -> (n, 4, 2)
    # The best come first: drawn from the last, so that strong ones lie on top.
    for index in reversed(range(len(detections))):
        color = style.color or colors[class_names[detections.labels[index]]]
        outline = middle + floors[index] @ to_pixels  # (4, 2)
        if style.front_opacity > 0:
            fill_polygon(image, outline, color, style.front_opacity)
        for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            draw_line(image, start, end, color, style.thickness, style.dash_px)
        center, front = outline.mean(axis=0), outline[2:].mean(axis=0)
        draw_line(image, center, front, color, style.thickness)
        velocity = boxes[index, 7:9].numpy()  # NaN where a track is too short to define it
        if np.isfinite(velocity).all() and np.hypot(*velocity) >= LEAST_SPEED_MPS:
            # The arrow is the way of one second.
            draw_arrow(image, center, center + velocity @ to_pixels, color)
