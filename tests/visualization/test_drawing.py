"""Primitives: clipping, blending, text."""

from __future__ import annotations

import numpy as np
import pytest

from streampetr_vit.visualization.drawing import (
    clip_to_image,
    draw_line,
    draw_text,
    fill_polygon,
)


def _black(width: int = 100, height: int = 60) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ((10, 20), (30, 40), ((10, 20), (30, 40))),
        ((-100, 30), (200, 30), ((0, 30), (100, 30))),
        ((50, -60), (50, 120), ((50, 0), (50, 60))),
        ((-10, 20), (-10, 40), None),
        ((-50, 0), (0, -50), None),
        ((1e9, 1e9), (2e9, 1e9), None),
    ],
)
def test_clip_to_image(start: tuple, end: tuple, expected: tuple | None) -> None:
    clipped = clip_to_image(np.array(start, float), np.array(end, float), _black())
    if expected is None:
        assert clipped is None
    else:
        np.testing.assert_allclose(clipped, expected)


def test_lines_from_far_outside_are_straight() -> None:
    """Without clipping the ends would overflow OpenCV's fixed-point integers."""
    image = _black()
    draw_line(image, np.array([-1e8, -1e8 + 10]), np.array([1e8, 1e8 + 10]), (255, 0, 0))
    rows, columns = np.nonzero(image[:, :, 0])
    assert len(rows) >= 50
    assert np.abs(rows - columns - 10).max() <= 1


def test_dashes_leave_gaps() -> None:
    full, dashed = _black(), _black()
    draw_line(full, np.array([5, 30]), np.array([95, 30]), (255, 255, 255))
    draw_line(dashed, np.array([5, 30]), np.array([95, 30]), (255, 255, 255), dash_px=6)
    assert (full[30, 5:95, 0] > 0).all()
    share = (dashed[30, 5:95, 0] > 128).mean()
    assert 0.35 < share < 0.7


def test_polygons_blend_and_stay_inside() -> None:
    image = _black()
    corners = np.array([[-20.0, 10], [40, 10], [40, 200], [-20, 200]])
    fill_polygon(image, corners, (200, 100, 0), opacity=0.5)
    assert image[30, 20].tolist() == [100, 50, 0]
    assert not image[:8].any() and not image[:, 43:].any()


def test_text_is_moved_into_the_image() -> None:
    image = _black()
    assert draw_text(image, "car 0.9", (500, -40)) > 20
    assert image.any()
