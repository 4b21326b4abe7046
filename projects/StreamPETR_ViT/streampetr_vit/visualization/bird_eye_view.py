"""The scene from above: forward is up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from streampetr_vit.structures import Detections, box_corners
from streampetr_vit.visualization.camera_view import PREDICTION_STYLE, TRUTH_STYLE, BoxStyle
from streampetr_vit.visualization.colors import (
    BACKGROUND_COLOR,
    EGO_COLOR,
    GRID_COLOR,
    OTHER_COLOR,
    Color,
    class_colors,
)
from streampetr_vit.visualization.drawing import (
    FloatArray,
    Image,
    draw_circle,
    draw_line,
    draw_text,
    fill_polygon,
)

RING_SPACING_M = 10.0
# Slower objects get no arrow: it would be shorter than the box's own heading line.
LEAST_SPEED_MPS = 0.5
# The outline of a car around the lidar of nuScenes, metres: right, forward.
_EGO_OUTLINE_M = ((-0.9, -2.9), (0.9, -2.9), (0.9, 1.3), (0.0, 2.2), (-0.9, 1.3))
_FLOOR = (0, 2, 6, 4)  # numbers of `box_corners`: rear right, rear left, front left, front right


def draw_bird_eye_view(
    class_names: Sequence[str],
    predictions: Detections | None = None,
    true_boxes: ArrayLike | None = None,
    true_labels: Sequence[int] | None = None,
    range_m: float = 51.2,
    size_px: int = 720,
    forward: tuple[float, float] = (0.0, 1.0),
) -> Image:
    """Draws range rings, the ego vehicle, and boxes with heading and velocity.

    Args:
        class_names: names of the labels.
        predictions: boxes in the colours of their classes.
        true_boxes: (n, 9), lidar frame; dashed white.
        true_labels: n class numbers.
        range_m: half the width of the square that is drawn.
        size_px: width and height of the picture.
        forward: the vehicle's forward direction, (x, y) in the lidar frame, a unit vector. In
            nuScenes it is y.

    Returns:
        (size_px, size_px, 3) uint8 RGB.
    """
    image = np.empty((size_px, size_px, 3), np.uint8)
    image[:] = BACKGROUND_COLOR
    canvas = _Canvas(image, range_m, forward, class_names)
    _draw_rings(canvas)
    if true_boxes is not None and true_labels is not None:
        _draw_boxes(canvas, np.asarray(true_boxes), true_labels, TRUTH_STYLE)
    if predictions is not None:
        # Weak ones first, so that strong ones lie on top.
        order = np.argsort(predictions.scores.cpu().numpy(), kind="stable")
        boxes, labels = (t.cpu().numpy()[order] for t in (predictions.boxes, predictions.labels))
        _draw_boxes(canvas, boxes, labels.tolist(), PREDICTION_STYLE)
    fill_polygon(image, canvas.place(np.array(_EGO_OUTLINE_M)), EGO_COLOR)
    draw_text(image, "BIRD'S-EYE VIEW", (8, 18))
    return image


class _Canvas:
    """A picture, the scale of its metres, and the colours of its classes."""

    def __init__(
        self,
        image: Image,
        range_m: float,
        forward: tuple[float, float],
        class_names: Sequence[str],
    ) -> None:
        self.image = image
        self.range_m = range_m
        # Rows: the directions to the right and forward, in the lidar frame.
        self.axes = np.array([[forward[1], -forward[0]], forward])
        self.class_names, self.colors = class_names, class_colors(class_names)
        self.px_per_m = image.shape[0] / (2 * range_m)

    def pixels(self, points_m: FloatArray) -> FloatArray:
        """(k, 2) points x, y in the lidar frame -> (k, 2) pixels."""
        return self.place(np.asarray(points_m, np.float64) @ self.axes.T)

    def place(self, points_m: FloatArray) -> FloatArray:
        """(k, 2) metres to the right and forward -> (k, 2) pixels."""
        middle = (self.image.shape[0] - 1) / 2
        # Rows of a picture count downwards: forward is minus.
        return middle + np.asarray(points_m, np.float64) * [self.px_per_m, -self.px_per_m]


def _draw_rings(canvas: _Canvas) -> None:
    for direction in np.eye(2):
        ends = canvas.place(np.stack((-direction, direction)) * canvas.range_m)
        draw_line(canvas.image, ends[0], ends[1], GRID_COLOR)
    center = canvas.place(np.zeros(2))
    # The corners of the square are sqrt(2) times its range away.
    for radius in np.arange(RING_SPACING_M, 1.4 * canvas.range_m, RING_SPACING_M):
        draw_circle(canvas.image, center, radius * canvas.px_per_m, GRID_COLOR)
        if radius < canvas.range_m:
            x, y = canvas.place(np.array([0.0, radius]))
            draw_text(canvas.image, f"{radius:.0f} m", (x + 4, y - 3), scale=0.36)


def _draw_boxes(canvas: _Canvas, boxes: FloatArray, labels: Sequence[int], style: BoxStyle) -> None:
    boxes = boxes.reshape(len(labels), 9)  # an empty list is (0,)
    corners = box_corners(torch.tensor(boxes, dtype=torch.float64)).numpy()  # (n, 8, 3)
    for box, floor, label in zip(boxes, corners[:, _FLOOR, :2], labels, strict=True):
        name = canvas.class_names[label] if label >= 0 else "other"
        color = style.color or canvas.colors.get(name, OTHER_COLOR)
        outline = canvas.pixels(floor)  # (4, 2)
        if style.front_opacity > 0:
            fill_polygon(canvas.image, outline, color, style.front_opacity)
        for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            draw_line(canvas.image, start, end, color, style.thickness, style.dash_px)
        center, front = outline.mean(axis=0), outline[2:].mean(axis=0)
        draw_line(canvas.image, center, front, color, style.thickness)
        velocity = box[7:9]  # NaN where a track is too short to define it
        if np.isfinite(velocity).all() and np.hypot(*velocity) >= LEAST_SPEED_MPS:
            # The arrow is the way of one second.
            _draw_arrow(canvas.image, center, canvas.pixels(box[:2] + velocity), color)


def _draw_arrow(image: Image, start: FloatArray, tip: FloatArray, color: Color) -> None:
    draw_line(image, start, tip, color)
    along = (tip - start) / max(float(np.hypot(*(tip - start))), 1e-9)
    across = np.array([-along[1], along[0]])
    for side in (-1, 1):
        draw_line(image, tip, tip - 6 * along + side * 3.5 * across, color)
