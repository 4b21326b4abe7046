"""Which of several boxes of one object stands for all."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streampetr_vit.tracking.duplicates import Footprints, representatives, yaws_of

HERE = np.zeros(2)


def merged(
    places: list[tuple[float, float]],
    near_m: float = 1.0,
    size: tuple[float, float] = (4.6, 2.0),
    yaws: list[float] | None = None,
    kinds: list[int] | None = None,
    here: tuple[float, float] = (0.0, 0.0),
) -> list[int]:
    count = len(places)
    boxes = Footprints(
        centers_m=np.array(places).reshape(-1, 2),
        sizes_m=np.tile(size, (count, 1)),
        yaws_rad=np.array(yaws or [0.0] * count),
        kinds=np.array(kinds or [0] * count),
        near_m=np.full(count, near_m),
    )
    return representatives(boxes, np.array(here)).tolist()


def test_the_best_takes_what_is_near_it():
    assert merged([(0, 10), (0.9, 10)]) == [0, 0]
    assert merged([(0, 10), (1.0, 10)]) == [0, 1]  # the limit itself is not near
    assert merged([(0, 10), (0.9, 10)], kinds=[0, 1]) == [0, 1]
    assert merged([]) == []


def test_a_row_of_neighbours_does_not_become_one():
    # Each is near the next one. The second, which is taken, takes nobody.
    assert merged([(0, 10), (0.9, 10), (1.8, 10), (2.7, 10)]) == [0, 0, 2, 2]
    # The best may be in the middle, and takes both sides.
    assert merged([(0.9, 10), (0, 10), (1.8, 10)]) == [0, 0, 0]
    # Between two good ones, the better has it.
    assert merged([(0, 10), (1.8, 10), (0.9, 10)]) == [0, 1, 0]


def test_boxes_on_one_ray_that_overlap_are_one():
    assert merged([(30, 0), (34.5, 0)]) == [0, 0]
    assert merged([(30, 0), (34.7, 0)]) == [0, 1]  # behind each other
    assert merged([(30, 0), (34.5, 0)], here=(30, -30)) == [0, 1]  # seen side by side
    assert merged([(0, 30), (0, 32.1)]) == [0, 1]  # 2 m wide each
    assert merged([(0, 30), (0, 31.9)]) == [0, 0]


@pytest.mark.parametrize("degrees, same", [(0.45, True), (0.55, False)])
def test_a_ray_is_half_a_degree_wide(degrees: float, same: bool):
    for start in (0.0, 1.0, math.pi, -math.pi / 2):  # at pi the azimuth wraps
        for turn in (math.radians(degrees), -math.radians(degrees)):
            other = start + turn
            places = [
                (30 * math.cos(start), 30 * math.sin(start)),
                (33 * math.cos(other), 33 * math.sin(other)),
            ]
            assert merged(places, yaws=[start, start]) == ([0, 0] if same else [0, 1])


def test_rectangles_overlap_as_they_are_turned():
    # One is turned by 45 degrees: its corner reaches 2.33 m to each side.
    corner = (4.6 + 2.0) / 2 / math.sqrt(2)
    for gap, same in ((-0.01, True), (0.01, False)):
        places = [(30.0, 0.0), (30.0 + 2.3 + corner + gap, 0.0)]
        assert merged(places, yaws=[0.0, math.pi / 4]) == ([0, 0] if same else [0, 1])
        assert merged(places, yaws=[math.pi / 4, 0.0]) == ([0, 0] if same else [0, 1])


def test_overlap_agrees_with_sampled_points():
    # Long, far and on one ray: only the overlap decides.
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), axis=-1).reshape(-1, 2)
    for _ in range(200):
        sizes = random.uniform(0.5, 6, (2, 2))
        yaws = random.uniform(-4, 4, 2)
        places = np.array([(100.0, 0.0), (100 + random.uniform(1, 6), 0.0)])
        boxes = Footprints(places, sizes, yaws, np.zeros(2, np.int64), np.full(2, 0.01))
        same = representatives(boxes, HERE).tolist() == [0, 0]
        touching = [
            inside(grid, sizes, yaws, places, grow, n) for grow in (0.9, 1.1) for n in (0, 1)
        ]
        if any(touching[:2]):
            assert same
        if not any(touching[2:]):
            assert not same


def inside(grid, sizes, yaws, places, grow: float, first: int) -> bool:
    """Whether a point of one rectangle lies in the other, both made larger."""
    second = 1 - first
    cos, sin = np.cos(yaws), np.sin(yaws)
    x, y = (grid * sizes[first] * grow / 2).T
    x, y = cos[first] * x - sin[first] * y, sin[first] * x + cos[first] * y
    x, y = x + places[first, 0] - places[second, 0], y + places[first, 1] - places[second, 1]
    along, across = cos[second] * x + sin[second] * y, cos[second] * y - sin[second] * x
    half = sizes[second] * grow / 2
    return bool(((np.abs(along) <= half[0]) & (np.abs(across) <= half[1])).any())


def test_the_map_may_be_far_away():
    # Float32 would round both places to half metres, and see 1.4 m between them.
    far = 5_412_345.0
    places = [(far + 0.24, far + 0.24), (far + 0.84, far + 0.84)]
    assert merged(places, size=(0.1, 0.1), here=(far, far)) == [0, 0]


def test_yaws_are_seen_from_above():
    yaws = np.linspace(-3, 3, 7)
    upright = np.stack((np.cos(yaws / 2), 0 * yaws, 0 * yaws, np.sin(yaws / 2)), axis=1)
    np.testing.assert_allclose(yaws_of(upright), yaws)
    np.testing.assert_allclose(yaws_of(-upright), yaws)  # the same turn
