"""The ways of objects from above, in the frame of the world, as panels of one picture.

All panels show the same part of the world: what lies at the same place is at the same place.
k is the number of places of a trail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.visualization.bird_eye_view import VEHICLE_OUTLINE_M
from streampetr_vit.visualization.colors import BACKGROUND_COLOR, EGO_COLOR, GRID_COLOR, Color
from streampetr_vit.visualization.drawing import (
    FloatArray,
    Image,
    blank,
    draw_circle,
    draw_line,
    draw_text,
    fill_polygon,
    text_width,
)
from streampetr_vit.visualization.labels import Label, write_labels

GRID_STEP_M = 10.0
_MARGIN_M, _LEAST_SIDE_M = 4.0, 20.0
_LARGEST_SCALE = 20.0  # pixels in a metre
_GAP_PX = 8  # between panels
_END_PX, _RING_PX, _DASH_PX = 4.0, 9.0, 5.0
_TITLE_SCALE = 0.5


@dataclass(frozen=True, eq=False)
class Trail:
    """Where one object was.

    Attributes:
        places_m: (k, 2) float64, x and y in the world frame, in the order of time; k is not 0.
        frames: (k,) int64, numbers of the frames; where one is missing, the line is dashed.
        color: RGB.
        label: written at its end, ASCII; "" writes none.
        thickness: of its line, pixels.
    """

    places_m: FloatArray
    frames: NDArray[np.int64]
    color: Color
    label: str = ""
    thickness: int = 2


@dataclass(frozen=True, eq=False)
class TrailPanel:
    """What one panel shows.

    Attributes:
        title: written in its corner.
        trails: the first lie on top, and have the choice where their labels are.
        rings_m: (m, 2) places with a ring around them.
    """

    title: str
    trails: Sequence[Trail]
    rings_m: FloatArray


@dataclass(frozen=True, eq=False)
class EgoPath:
    """The way of the vehicle.

    Attributes:
        places_m: (F, 2) float64, world frame, in the order of time; F is not 0.
        headings: (F, 2) float64, unit vectors.
    """

    places_m: FloatArray
    headings: FloatArray


def draw_trail_panels(
    panels: Sequence[TrailPanel],
    ego: EgoPath,
    max_width_px: int = 1280,
    max_height_px: int = 1000,
) -> Image:
    """Draws panels one above the other or side by side, whichever shows more.

    Args:
        panels: at least one.
        ego: its way goes to the right.
        max_width_px, max_height_px: of the picture.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    places = [trail.places_m for panel in panels for trail in panel.trails]
    forward = _mean_direction(ego.headings)
    low, high = _limits(np.concatenate((ego.places_m, *places)), forward)
    count, limits_px = len(panels), np.array([max_width_px, max_height_px])
    scales = []  # of panels in a column, and in a row
    for axis in (1, 0):
        shares = limits_px.astype(np.float64)
        shares[axis] = (shares[axis] - (count - 1) * _GAP_PX) / count
        scales.append(float((shares / (high - low)).min()))
    view = _View(forward, low, high, min(max(scales), _LARGEST_SCALE))
    drawn = [_draw_panel(panel, ego, view) for panel in panels]
    axis = 0 if scales[0] >= scales[1] else 1
    gap_px = (_GAP_PX, view.width_px) if axis == 0 else (view.height_px, _GAP_PX)
    parts = [part for image in drawn for part in (blank(*gap_px, EGO_COLOR), image)]
    return np.concatenate(parts[1:], axis=axis)


class _View:
    """From metres of the world frame to pixels: forward is to the right."""

    def __init__(
        self, forward: FloatArray, low: FloatArray, high: FloatArray, scale: float
    ) -> None:
        self.axes, self.low, self.scale = _axes(forward), low, scale
        self.width_px, self.height_px = np.maximum(1, np.floor((high - low) * scale)).astype(int)

    def pixels(self, places_m: FloatArray) -> FloatArray:
        """(..., 2) places of points (..., 2)."""
        return (places_m @ self.axes - self.low) * self.scale


def _axes(forward: FloatArray) -> FloatArray:
    """(2, 2) for points as rows: x and y of the world -> forward and to the right."""
    x, y = forward
    return np.array([[x, y], [y, -x]])


def _mean_direction(headings: FloatArray) -> FloatArray:
    total = headings.sum(axis=0)
    length = float(np.hypot(*total))
    # A full turn has no direction.
    return total / length if length > 1e-6 else headings[0]


def _limits(places_m: FloatArray, forward: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rectangle around places, forward and to the right, metres."""
    there = places_m @ _axes(forward)
    low, high = there.min(axis=0) - _MARGIN_M, there.max(axis=0) + _MARGIN_M
    missing = np.maximum(0.0, _LEAST_SIDE_M - (high - low)) / 2
    return low - missing, high + missing


def _draw_panel(panel: TrailPanel, ego: EgoPath, view: _View) -> Image:
    image = blank(view.height_px, view.width_px)
    _draw_grid(image, view)
    _draw_ego(image, ego, view)
    for trail in reversed(panel.trails):
        _draw_trail(image, trail, view)
    for center in view.pixels(panel.rings_m):
        for radius in (_RING_PX, _RING_PX + 1):
            draw_circle(image, center, radius, EGO_COLOR)
    named = [trail for trail in panel.trails if trail.label]
    ends = np.array([view.pixels(trail.places_m[-1]) for trail in named]).reshape(-1, 2)
    # A sign that is not seen: the trail's colour is all that there is to show.
    labels = [Label(trail.label, trail.color, BACKGROUND_COLOR) for trail in named]
    title_px = text_width(panel.title, _TITLE_SCALE) + 16, 26
    write_labels(image, labels, np.concatenate((ends - _END_PX, ends + _END_PX), axis=1), title_px)
    draw_text(image, panel.title, (8, 18), EGO_COLOR, _TITLE_SCALE)
    return image


def _draw_trail(image: Image, trail: Trail, view: _View) -> None:
    places = view.pixels(trail.places_m)  # (k, 2)
    steps = zip(places[:-1], places[1:], np.diff(trail.frames), strict=True)
    for start, end, frames in steps:
        dash_px = _DASH_PX if frames > 1 else 0.0
        draw_line(image, start, end, trail.color, trail.thickness, dash_px)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    dot = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    radius = _END_PX if trail.label else _END_PX / 2
    fill_polygon(image, places[-1] + radius * dot, trail.color)


def _draw_ego(image: Image, ego: EgoPath, view: _View) -> None:
    places = view.pixels(ego.places_m)
    for start, end in zip(places[:-1], places[1:], strict=True):
        draw_line(image, start, end, EGO_COLOR)
    x, y = ego.headings[-1]
    # Right and forward -> the world. Points are rows.
    outline = VEHICLE_OUTLINE_M @ np.array([[y, -x], [x, y]]) + ego.places_m[-1]
    fill_polygon(image, view.pixels(outline), EGO_COLOR)


def _draw_grid(image: Image, view: _View) -> None:
    """Draws squares of `GRID_STEP_M`, and how long their sides are."""
    step = GRID_STEP_M * view.scale
    height, width = image.shape[:2]
    for x in np.arange(step, width, step):
        draw_line(image, np.array([x, 0.0]), np.array([x, height]), GRID_COLOR)
    for y in np.arange(step, height, step):
        draw_line(image, np.array([0.0, y]), np.array([width, y]), GRID_COLOR)
    draw_text(image, f"a square: {GRID_STEP_M:.0f} m", (8, height - 8), scale=0.38)
