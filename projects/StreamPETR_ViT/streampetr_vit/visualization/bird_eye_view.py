"""The scene from above: forward is up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampetr_vit.structures import Detections, box_corners
from streampetr_vit.visualization.camera_view import BoxStyle, with_styles
from streampetr_vit.visualization.colors import (
    BACKGROUND_COLOR,
    EGO_COLOR,
    GRID_COLOR,
    Color,
    class_colors,
)
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
from streampetr_vit.visualization.labels import rectangles, write_labels
from streampetr_vit.visualization.track_marks import TrackMarks

RING_SPACINGS_M = (10.0, 20.0, 50.0, 100.0, 200.0)
RING_SPACING_PX = 28
# Slower objects get no arrow: it would be shorter than the box's own heading line.
LEAST_SPEED_MPS = 0.5
# The outline of a car, metres: right, forward. Around the lidar of nuScenes, and around the middle
# of the rear axle.
LIDAR_OUTLINE_M = np.array([(-0.9, -2.9), (0.9, -2.9), (0.9, 1.3), (0.0, 2.2), (-0.9, 1.3)])
VEHICLE_OUTLINE_M = np.array([(-0.9, -0.8), (0.9, -0.8), (0.9, 2.6), (0.0, 3.4), (-0.9, 2.6)])
MARKS_KEY = "lines: id   fill: class   tail: where it was"
ID_FILL_OPACITY = 0.5  # the class is seen by the fill alone
TRAIL_PX = 2
_TITLES_PX = (260, 40)  # title and key
_FAINTEST = 0.15  # of a trail's oldest part, as a share of its colour
_FLOOR = (0, 2, 6, 4)  # numbers of `box_corners`: rear right, rear left, front left, front right


def draw_bird_eye_view(
    class_names: Sequence[str],
    predictions: Detections | None = None,
    truth: Detections | None = None,
    range_m: float = 51.2,
    size_px: int = 720,
    forward: tuple[float, float] = (0.0, 1.0),
    outline_m: FloatArray = LIDAR_OUTLINE_M,
    marks: TrackMarks | None = None,
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
        marks: ids and trails of the predictions. Lines and trails have the colours of the ids.

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
    for detections, style in with_styles(predictions, truth, marks):
        draw_boxes_from_above(image, detections, to_pixels, style, class_names)
    fill_polygon(image, middle + outline_m * scale, EGO_COLOR)
    draw_text(image, "BIRD'S-EYE VIEW", (8, 18))
    if marks is not None:
        draw_text(image, MARKS_KEY, (8, 34), scale=0.36)
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
    fills = [style.color or colors[class_names[label]] for label in detections.labels]
    if style.marks is not None:
        draw_trails(image, style.marks, to_pixels)
    # The best come first: drawn from the last, so that strong ones lie on top.
    for index in reversed(range(len(detections))):
        color = style.line_color(index, fills[index])
        outline = middle + floors[index] @ to_pixels  # (4, 2)
        if style.front_opacity > 0:
            opacity = ID_FILL_OPACITY if style.has_id(index) else style.front_opacity
            fill_polygon(image, outline, fills[index], opacity)
        for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            draw_line(image, start, end, color, style.thickness, style.dash_px)
        center, front = outline.mean(axis=0), outline[2:].mean(axis=0)
        draw_line(image, center, front, color, style.thickness)
        velocity = boxes[index, 7:9].numpy()  # NaN where a track is too short to define it
        if np.isfinite(velocity).all() and np.hypot(*velocity) >= LEAST_SPEED_MPS:
            # The arrow is the way of one second.
            draw_arrow(image, center, center + velocity @ to_pixels, color)
    named = [index for index in range(len(detections)) if style.has_id(index)]
    # Without ages, which trails show: objects are close to each other here.
    labels = [style.label(index, fills[index], with_age=False) for index in named]
    write_labels(image, labels, rectangles(middle + floors[named] @ to_pixels), _TITLES_PX)


def draw_trails(image: Image, marks: TrackMarks, to_pixels: FloatArray) -> None:
    """Draws where objects were: lines in the colours of their ids, fading to the past.

    Args:
        image: (S, S, 3) uint8 RGB, drawn on.
        marks: trails in the frame whose origin is in the middle.
        to_pixels: as in `draw_boxes_from_above`.
    """
    middle = (len(image) - 1) / 2
    places = middle + marks.trails_m[:, :, :2] @ to_pixels  # (n, T, 2)
    for index in reversed(range(len(places))):
        known = places[index][np.isfinite(places[index]).all(axis=1)]
        color = marks.color(index, EGO_COLOR)
        shares = np.linspace(_FAINTEST, 1.0, max(len(known) - 1, 0))
        for start, end, share in zip(known[:-1], known[1:], shares, strict=True):
            draw_line(image, start, end, _faded(color, share), TRAIL_PX)


def _faded(color: Color, share: float) -> Color:
    """A colour on its way to the background."""
    parts = np.array(color) * share + np.array(BACKGROUND_COLOR) * (1 - share)
    red, green, blue = np.round(parts).astype(int).tolist()
    return red, green, blue
