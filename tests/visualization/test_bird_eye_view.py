"""The view from above."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import Detections
from streampetr_vit.visualization.bird_eye_view import draw_bird_eye_view
from streampetr_vit.visualization.colors import BACKGROUND_COLOR, CLASS_COLORS

SIZE, RANGE_M = 400, 20.0  # 10 pixels per metre

draw = partial(draw_bird_eye_view, NUSCENES.class_names, range_m=RANGE_M, size_px=SIZE)


def _drawn(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right and forward position, metres, of the pixels that the boxes changed."""
    empty = draw()
    rows, columns = np.nonzero(np.abs(image.astype(int) - empty).max(axis=2) > 60)
    middle = (SIZE - 1) / 2
    return (columns - middle) / 10, (middle - rows) / 10


def _detections(*rows: list[float], label: int = 1) -> Detections:
    return Detections(
        torch.tensor(rows), torch.full((len(rows),), 0.5), torch.full((len(rows),), label)
    )


def test_box_ahead_on_the_right() -> None:
    """x is right and y is up; the length runs along the heading."""
    row = [8.0, 12.0, 0.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0]
    image = draw(_detections(row))
    right, forward = _drawn(image)
    assert abs(right.min() - 6) < 0.2 and abs(right.max() - 10) < 0.2
    assert abs(forward.min() - 11) < 0.2 and abs(forward.max() - 13) < 0.2


def test_velocity_arrow_is_the_way_of_one_second() -> None:
    row = [0.0, 8.0, 0.0, 1.0, 1.0, 1.5, 0.0, 0.0, 6.0]
    moving = draw(_detections(row))
    _, forward = _drawn(moving)
    assert abs(forward.max() - 14) < 0.3
    row[8] = 0.1
    still = draw(_detections(row))
    _, forward = _drawn(still)
    assert forward.max() < 8.8


def test_true_boxes_and_undefined_velocity() -> None:
    image = draw(None, _detections([-10.0, -5.0, 0.0, 4.0, 2.0, 1.5, np.pi / 2, np.nan, np.nan]))
    right, forward = _drawn(image)
    # Half of an outline of 12 m, and the heading line.
    assert 50 < len(right) < 300
    assert right.max() < -8.7 and right.min() > -11.3
    assert forward.max() < -2.7 and forward.min() > -7.3


def test_colours_and_opacity() -> None:
    row = [8.0, 12.0, 0.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0]
    image = draw(_detections(row, label=3))
    shade = image[75, 275].astype(int)  # inside the box, off its heading line
    bus = np.array(CLASS_COLORS["bus"])
    np.testing.assert_allclose(shade, 0.2 * bus + 0.8 * np.array(BACKGROUND_COLOR), atol=12)


def test_empty_scene_shows_rings_and_the_ego_vehicle() -> None:
    image = draw()
    assert image.shape == (SIZE, SIZE, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 5


def test_boxes_far_outside_do_no_harm() -> None:
    row = [1e6, -1e6, 0.0, 4.0, 2.0, 1.5, 0.0, 1e5, 0.0]
    empty = draw()
    image = draw(_detections(row))
    np.testing.assert_array_equal(image, empty)
