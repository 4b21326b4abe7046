"""Boxes drawn on a camera picture.

Shape letters: n boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike

from streampetr_vit.structures import Detections, box_corners
from streampetr_vit.visualization.colors import (
    BACKGROUND_COLOR,
    TRUTH_COLOR,
    Color,
    class_colors,
)
from streampetr_vit.visualization.drawing import (
    FloatArray,
    Image,
    draw_line,
    draw_text,
    fill_polygon,
)
from streampetr_vit.visualization.labels import Label, rectangles, write_labels
from streampetr_vit.visualization.track_marks import TrackMarks

NEAR_M = 0.1  # depth of the plane at which boxes are cut

# Corners whose numbers differ in one bit share an edge; see `box_corners`.
_EDGES = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]
_FRONT_FACE = [4, 5, 7, 6]
_FLOOR, _FLOOR_FRONT = [0, 2, 4, 6], [4, 6]


@dataclass(frozen=True)
class BoxStyle:
    """How boxes are drawn.

    Attributes:
        color: RGB; None for the colour of the class.
        thickness: of the edges, pixels.
        dash_px: length of the dashes; 0 for full lines.
        front_opacity: of the filled front face, 0 for none.
        with_label: whether class and score are written.
        marks: ids of the boxes. Lines of a box with an id have the colour of the id, its fill keeps
            that of the class, and its label says id and age.
    """

    color: Color | None = None
    thickness: int = 1
    dash_px: float = 0.0
    front_opacity: float = 0.0
    with_label: bool = False
    marks: TrackMarks | None = None

    def line_color(self, index: int, fill: Color) -> Color:
        """Of the edges of a box that is filled with a colour."""
        return fill if self.marks is None else self.marks.color(index, fill)

    def has_id(self, index: int) -> bool:
        """Whether a box has one."""
        return self.marks is not None and self.marks.has_id(index)

    def label(self, index: int, fill: Color, with_age: bool = True) -> Label:
        """What is written beside a box with an id."""
        assert self.marks is not None
        text = self.marks.text(index) if with_age else f"#{self.marks.ids[index]}"
        return Label(text, self.marks.color(index, fill), fill)


PREDICTION_STYLE = BoxStyle(thickness=2, front_opacity=0.2, with_label=True)
TRUTH_STYLE = BoxStyle(color=TRUTH_COLOR, dash_px=4.0)


def with_styles(
    predictions: Detections | None,
    truth: Detections | None,
    marks: TrackMarks | None = None,
) -> list[tuple[Detections, BoxStyle]]:
    """Predicted and true boxes on the CPU in the order of drawing; predictions lie on top.

    `marks` are those of the predictions.
    """
    pairs = ((truth, TRUTH_STYLE), (predictions, replace(PREDICTION_STYLE, marks=marks)))
    return [(boxes.to("cpu"), style) for boxes, style in pairs if boxes is not None]


def project_boxes(boxes: ArrayLike, lidar_to_image: ArrayLike) -> FloatArray:
    """Box corners in an image, before the division by depth.

    Args:
        boxes: (n, 7 or more), lidar frame.
        lidar_to_image: (4, 4); its third row gives the depth in metres.

    Returns:
        (n, 8, 3) float64: (u * depth, v * depth, depth).
    """
    # Before the division straight lines stay straight: edges can be cut at the camera's plane.
    corners = box_corners(torch.tensor(np.asarray(boxes), dtype=torch.float64)).numpy()  # (n, 8, 3)
    matrix = np.asarray(lidar_to_image, dtype=np.float64)
    return corners @ matrix[:3, :3].T + matrix[:3, 3]  # (n, 8, 3) @ (3, 3) + (3,)


def draw_boxes(
    image: Image,
    detections: Detections,
    lidar_to_image: ArrayLike,
    style: BoxStyle,
    class_names: Sequence[str],
) -> None:
    """Draws boxes on one picture.

    Args:
        image: (H, W, 3) uint8 RGB, drawn on.
        detections: on the CPU.
        lidar_to_image: (4, 4) of this very picture.
        style: how they are drawn.
        class_names: names of the labels.
    """
    colors = class_colors(class_names)
    projected = project_boxes(detections.boxes, lidar_to_image)  # (n, 8, 3)
    labels, scores = detections.labels.tolist(), detections.scores.tolist()
    # Far ones first, so that near ones lie on top.
    order = np.argsort(-projected[:, :, 2].mean(axis=1))
    for index in order:
        corners = projected[index]  # (8, 3)
        if corners[:, 2].max() <= NEAR_M:
            continue  # wholly behind the camera
        name = class_names[labels[index]]
        color = style.color or colors[name]
        _draw_box(image, corners, style.line_color(index, color), color, style)
        if style.with_label and not style.has_id(index):
            _draw_label(image, corners, f"{name.replace('_', ' ')} {scores[index]:.2f}", color)
    named = [index for index in reversed(order) if style.has_id(index)]
    fills = [style.color or colors[class_names[labels[index]]] for index in named]
    _write_ids(image, projected[named], named, fills, style)


def _draw_box(
    image: Image, corners: FloatArray, color: Color, fill: Color, style: BoxStyle
) -> None:
    """The edges of a box, its front face, and a line on its floor that points to the front."""
    # A face that is cut by the camera's plane is left out: it would fill half the picture.
    if style.front_opacity > 0 and corners[_FRONT_FACE, 2].min() > NEAR_M:
        face = corners[_FRONT_FACE]  # (4, 3)
        fill_polygon(image, face[:, :2] / face[:, 2:], fill, style.front_opacity)
    segments = [(corners[a], corners[b]) for a, b in _EDGES]
    segments.append((corners[_FLOOR].mean(axis=0), corners[_FLOOR_FRONT].mean(axis=0)))
    for start, end in segments:
        cut = cut_at_near_plane(start, end)
        if cut is not None:
            draw_line(image, *cut, color, style.thickness, style.dash_px)


def cut_at_near_plane(start: FloatArray, end: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """The part of an edge in front of the camera, as two (2,) pixel positions."""
    if max(start[2], end[2]) <= NEAR_M:
        return None
    if start[2] < NEAR_M:
        start = start + (NEAR_M - start[2]) / (end[2] - start[2]) * (end - start)
    elif end[2] < NEAR_M:
        end = end + (NEAR_M - end[2]) / (start[2] - end[2]) * (start - end)
    return start[:2] / start[2], end[:2] / end[2]


def _write_ids(
    image: Image,
    projected: FloatArray,
    indexes: Sequence[int],
    fills: Sequence[Color],
    style: BoxStyle,
) -> None:
    """Writes ids and ages of boxes (k, 8, 3) beside them, for the first ones first."""
    seen = [k for k, corners in enumerate(projected) if _is_in_sight(image, corners)]
    write_labels(
        image,
        [style.label(indexes[k], fills[k]) for k in seen],
        rectangles(projected[seen, :, :2] / projected[seen, :, 2:]),
    )


def _draw_label(image: Image, corners: FloatArray, text: str, color: Color) -> None:
    """Writes above a box that is in sight."""
    # `draw_text` would move the text of another one into the picture.
    if _is_in_sight(image, corners):
        left, top = (corners[:, :2] / corners[:, 2:]).min(axis=0)  # (8, 2) -> (2,)
        draw_text(image, text, (left, top - 4), color, 0.36, BACKGROUND_COLOR)


def _is_in_sight(image: Image, corners: FloatArray) -> bool:
    """Whether a box is wholly in front of the camera and its centre in the picture."""
    if corners[:, 2].min() <= NEAR_M:
        return False
    middle = (corners[:, :2] / corners[:, 2:]).mean(axis=0)
    return bool((middle >= 0).all() and (middle < [image.shape[1], image.shape[0]]).all())
