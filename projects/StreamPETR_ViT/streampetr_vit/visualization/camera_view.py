"""Camera pictures with boxes drawn on them.

Shape letters: N cameras, n boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike

from streampetr_vit.structures import DatasetSpec, Detections, box_corners
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
    """

    color: Color | None = None
    thickness: int = 1
    dash_px: float = 0.0
    front_opacity: float = 0.0
    with_label: bool = False


PREDICTION_STYLE = BoxStyle(thickness=2, front_opacity=0.2, with_label=True)
TRUTH_STYLE = BoxStyle(color=TRUTH_COLOR, dash_px=4.0)


def with_styles(
    predictions: Detections | None, truth: Detections | None
) -> list[tuple[Detections, BoxStyle]]:
    """Predicted and true boxes on the CPU in the order of drawing; predictions lie on top."""
    pairs = ((truth, TRUTH_STYLE), (predictions, PREDICTION_STYLE))
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
    for index in np.argsort(-projected[:, :, 2].mean(axis=1)):
        corners = projected[index]  # (8, 3)
        if corners[:, 2].max() <= NEAR_M:
            continue  # wholly behind the camera
        name = class_names[labels[index]]
        color = style.color or colors[name]
        _draw_box(image, corners, color, style)
        if style.with_label:
            _draw_label(image, corners, f"{name.replace('_', ' ')} {scores[index]:.2f}", color)


def draw_cameras(
    images: Sequence[Image],
    lidar_to_image: ArrayLike,
    spec: DatasetSpec,
    predictions: Detections | None = None,
    truth: Detections | None = None,
    panel_width: int = 640,
) -> list[Image]:
    """The pictures of one moment with predicted and true boxes.

    Args:
        images: N pictures (H, W, 3) uint8 RGB, of any sizes; not changed.
        lidar_to_image: (N, 4, 4) of these pictures.
        spec: names of the cameras, which are written into the pictures, and of the classes.
        predictions: drawn in the colours of their classes, the front face filled.
        truth: drawn as thin dashed white lines.
        panel_width: pixels.

    Returns:
        N pictures of that width, each with the proportions of its own.
    """
    panels: list[Image] = []
    for image, matrix, name in zip(images, np.asarray(lidar_to_image), spec.cameras, strict=True):
        # Resized before lines are drawn: those of small pictures would be enlarged with them.
        scale = panel_width / image.shape[1]
        size = (panel_width, round(image.shape[0] * scale))
        interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        panel: Image = np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
        # Pixel centres are at integer coordinates: u' = scale * (u + 0.5) - 0.5.
        enlarge = np.diag([scale, scale, 1.0, 1.0])
        enlarge[:2, 2] = 0.5 * scale - 0.5
        matrix = enlarge @ np.asarray(matrix, dtype=np.float64)
        for detections, style in with_styles(predictions, truth):
            draw_boxes(panel, detections, matrix, style, spec.class_names)
        title = name.removeprefix("CAM_").replace("_", " ")
        draw_text(panel, title, (8, 18), background=BACKGROUND_COLOR)
        panels.append(panel)
    return panels


def camera_grid(panels: Sequence[Image], camera_names: Sequence[str], gap_px: int = 4) -> Image:
    """Lays pictures out in rows of three, front above back.

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
    # Own cameras may have several proportions: each row is as high as it needs to be.
    heights = [max(panel.shape[0] for panel in row) + gap_px for row in rows]
    step = panels[0].shape[1] + gap_px  # from column to column
    grid = np.empty((sum(heights) - gap_px, len(rows[0]) * step - gap_px, 3), np.uint8)
    grid[:] = BACKGROUND_COLOR
    for number, row in enumerate(rows):
        top = sum(heights[:number])
        for column, panel in enumerate(row):
            height, width = panel.shape[:2]
            grid[top : top + height, column * step : column * step + width] = panel
    return grid


def _draw_box(image: Image, corners: FloatArray, color: Color, style: BoxStyle) -> None:
    """The edges of a box, its front face, and a line on its floor that points to the front."""
    # A face that is cut by the camera's plane is left out: it would fill half the picture.
    if style.front_opacity > 0 and corners[_FRONT_FACE, 2].min() > NEAR_M:
        face = corners[_FRONT_FACE]  # (4, 3)
        fill_polygon(image, face[:, :2] / face[:, 2:], color, style.front_opacity)
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


def _draw_label(image: Image, corners: FloatArray, text: str, color: Color) -> None:
    """Writes above a box that is wholly in front of the camera and whose centre is in sight."""
    if corners[:, 2].min() <= NEAR_M:
        return
    pixels = corners[:, :2] / corners[:, 2:]  # (8, 2)
    middle = pixels.mean(axis=0)
    if (middle < 0).any() or (middle >= [image.shape[1], image.shape[0]]).any():
        return  # `draw_text` would move the text of a box out of sight into the picture
    left, top = pixels.min(axis=0)
    draw_text(image, text, (left, top - 4), color, 0.36, BACKGROUND_COLOR)
