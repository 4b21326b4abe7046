"""Panels of trails: where things are, and that both panels show the same part of the world."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streampetr_vit.visualization.colors import EGO_COLOR
from streampetr_vit.visualization.drawing import Image
from streampetr_vit.visualization.trails_from_above import (
    EgoPath,
    Trail,
    TrailPanel,
    draw_trail_panels,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)
NOWHERE = np.zeros((0, 2))
START = np.array([600.0, 1600.0])  # of a car that drives to the north


def _trail(*places: tuple[float, float], color: Any = RED, **more: Any) -> Trail:
    """To the east and to the north of the start, a place in each frame."""
    frames = more.pop("frames", np.arange(len(places)))
    return Trail(START + np.array(places, dtype=float), frames, color, **more)


def _ego(length_m: float, heading: tuple[float, float] = (0.0, 1.0)) -> EgoPath:
    ways = np.linspace(0, length_m, 11)[:, None] * np.array(heading)
    return EgoPath(START + ways, np.tile(heading, (11, 1)))


def _draw(*trails: Trail, ego: EgoPath | None = None, rings: Any = NOWHERE, **size: int) -> Image:
    panel = TrailPanel("", trails, rings)
    return draw_trail_panels([panel], _ego(0.0) if ego is None else ego, **size)


def _middle(image: Image, color: Any) -> tuple[float, float]:
    """Column and row of what has a colour."""
    rows, columns = np.nonzero(np.abs(image.astype(int) - color).max(axis=2) < 90)
    assert len(rows)
    return float(columns.mean()), float(rows.mean())


def test_forward_is_right_and_left_is_up() -> None:
    # Ahead of the car, and to its left, that is in the west.
    image = _draw(_trail((0, 30)), _trail((-30, 0), color=BLUE))
    (x_ahead, y_ahead), (x_left, y_left) = _middle(image, RED), _middle(image, BLUE)
    assert x_ahead > x_left + 100 and y_left < y_ahead - 100


def test_metres_are_the_same_along_and_across() -> None:
    image = _draw(_trail((0, 0), color=(0, 255, 0)), _trail((0, 20)), _trail((20, 0), color=BLUE))
    (x, y), (x_ahead, _) = _middle(image, (0, 255, 0)), _middle(image, RED)
    _, y_right = _middle(image, BLUE)
    assert abs((x_ahead - x) - (y_right - y)) < 2


def test_panels_show_the_same_part_of_the_world() -> None:
    trail, other = _trail((-10, 0), (-10, 15)), _trail((25, 40), color=BLUE)
    for length_m, axis in ((100.0, 0), (0.0, 1)):  # a long way: below each other
        panels = [TrailPanel("", [trail], NOWHERE), TrailPanel("", [trail, other], NOWHERE)]
        image = draw_trail_panels(panels, _ego(length_m), max_width_px=800, max_height_px=500)
        assert image.shape[0] <= 500 and image.shape[1] <= 800
        side = (image.shape[axis] - 8) // 2
        first, second = np.split(image, [side, side + 8], axis=axis)[::2]
        assert _middle(first, RED) == _middle(second, RED)
        assert not (np.abs(first.astype(int) - BLUE).max(axis=2) < 90).any()
        _middle(second, BLUE)


def test_what_was_not_seen_is_dashed() -> None:
    way = ((-5, 0), (-5, 20))
    drawn = [
        int((np.abs(_draw(_trail(*way, frames=frames)).astype(int) - RED).max(axis=2) < 90).sum())
        for frames in (np.array([3, 4]), np.array([3, 5]))
    ]
    assert 0.4 * drawn[0] < drawn[1] < 0.75 * drawn[0]


def test_rings_and_labels_are_at_their_places() -> None:
    trail = _trail((-15, 0), (-15, 25))
    plain = _draw(trail)
    ring = _draw(trail, rings=trail.places_m[1:])
    rows, columns = np.nonzero((plain != ring).any(axis=2))
    x, y = columns.mean(), rows.mean()
    named = _draw(_trail((-15, 0), (-15, 25), label="17"))
    rows, columns = np.nonzero((plain != named).any(axis=2))
    assert np.hypot(columns - x, rows - y).max() < 45
    assert len(rows) > 100


def test_the_first_trail_lies_on_top() -> None:
    below, above = _trail((-9, 5), color=BLUE), _trail((-9, 5), color=RED)
    image = _draw(above, below)
    assert (np.abs(image.astype(int) - RED).max(axis=2) < 90).sum() > 5
    assert not (np.abs(image.astype(int) - BLUE).max(axis=2) < 90).any()


@pytest.mark.parametrize("angle", [0.0, 0.8, 2.0, -1.5])
def test_the_car_looks_to_the_right(angle: float) -> None:
    ego = _ego(0.0, (float(np.cos(angle)), float(np.sin(angle))))
    image = _draw(_trail((0, 0)), ego=ego)[100:300, 100:300]  # without the title and the scale
    (x, y), (x_car, y_car) = _middle(image, RED), _middle(image, EGO_COLOR)
    # Its middle is 0.9 m in front of the rear axle.
    assert 10 < x_car - x < 35 and abs(y_car - y) < 3


def test_a_car_that_turned_round_and_no_trails() -> None:
    headings = np.array([[0.0, 1.0], [0.0, -1.0]])
    image = _draw(ego=EgoPath(START + np.zeros((2, 2)), headings))
    assert image.shape == (400, 400, 3)  # the least side, at the largest scale
    assert (image > 200).all(axis=2).sum() > 300  # the car
