"""Camera pictures of one width, with boxes and names.

Shape letters: N cameras.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from streampetr_vit.structures import DatasetSpec, Detections
from streampetr_vit.visualization.camera_view import BoxStyle, draw_boxes, with_styles
from streampetr_vit.visualization.colors import BACKGROUND_COLOR, MISSING_COLOR
from streampetr_vit.visualization.drawing import FloatArray, Image, blank, draw_text, text_width


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
    boxes = with_styles(predictions, truth)
    return [
        draw_camera(image, matrix, name, boxes, spec.class_names, panel_width)
        for image, matrix, name in zip(
            images, np.asarray(lidar_to_image), spec.cameras, strict=True
        )
    ]


def draw_camera(
    image: Image,
    lidar_to_image: ArrayLike,
    name: str,
    boxes: Sequence[tuple[Detections, BoxStyle]],
    class_names: Sequence[str],
    panel_width: int,
) -> Image:
    """One picture with boxes and the camera's name.

    Args:
        image: (H, W, 3) uint8 RGB, not changed.
        lidar_to_image: (4, 4) of this very picture, from the frame of the boxes.
        name: of the camera.
        boxes: on the CPU, in the order of drawing; see `with_styles`.
        class_names: names of their labels.
        panel_width: pixels.

    Returns:
        (H', panel_width, 3) uint8 RGB of the same proportions.
    """
    # Resized before lines are drawn: those of small pictures would be enlarged with them.
    panel = resized(image, panel_width)
    matrix = to_panel(image.shape[1], panel_width) @ np.asarray(lidar_to_image, dtype=np.float64)
    for detections, style in boxes:
        draw_boxes(panel, detections, matrix, style, class_names)
    _draw_title(panel, name)
    return panel


def draw_missing(name: str, width: int, height: int, panel_width: int) -> Image:
    """What stands in the place of a picture (width, height) that is not there."""
    panel = empty_panel(width, height, panel_width)
    text = "no picture"
    place = (panel_width - text_width(text)) / 2, panel.shape[0] / 2 + 5
    draw_text(panel, text, place)
    _draw_title(panel, name)
    return panel


def resized(image: Image, panel_width: int) -> Image:
    """A picture in the width of a panel, of the same proportions."""
    size = (panel_width, _panel_height(image.shape[1], image.shape[0], panel_width))
    interpolation = cv2.INTER_CUBIC if panel_width > image.shape[1] else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def empty_panel(width: int, height: int, panel_width: int) -> Image:
    """A panel in the place of a picture (width, height) that is not there."""
    return blank(_panel_height(width, height, panel_width), panel_width, MISSING_COLOR)


def to_panel(width: int, panel_width: int) -> FloatArray:
    """(4, 4) from (u * depth, v * depth, depth, 1) of a picture to the same of its panel."""
    scale = panel_width / width
    # Pixel centres are at integer coordinates: u' = scale * (u + 0.5) - 0.5.
    matrix = np.diag([scale, scale, 1.0, 1.0])
    matrix[:2, 2] = 0.5 * scale - 0.5
    return matrix


def _panel_height(width: int, height: int, panel_width: int) -> int:
    return max(1, round(height * (panel_width / width)))


def _draw_title(panel: Image, name: str) -> None:
    title = name.removeprefix("CAM_").replace("_", " ")
    draw_text(panel, title, (8, 18), background=BACKGROUND_COLOR)
