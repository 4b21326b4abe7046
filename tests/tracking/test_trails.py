"""Trails: the last place is now, and old places are apart by a quarter of a second."""

from __future__ import annotations

import numpy as np
import pytest

from streampetr_vit.structures.tracks import TRAIL_LENGTH
from streampetr_vit.tracking.trails import begun, grown


def walk(period_s: float, moments: int, start_s: float = 1.6e9) -> np.ndarray:
    """(T, 2) trail of an object that drives 1 m/s along x."""
    trails, times = begun(np.zeros((1, 2)), start_s)
    for moment in range(1, moments):
        place = np.array([[moment * period_s, 0.0]])
        trails, times = grown(trails, times, place, start_s + moment * period_s)
    return trails[0]


def test_a_new_trail_has_one_place() -> None:
    trails, times = begun(np.array([[3.0, 4.0]]), 7)
    assert trails.shape == (1, TRAIL_LENGTH, 2) and times.tolist() == [7.0]
    assert trails[0, -1].tolist() == [3.0, 4.0]
    assert np.isnan(trails[0, :-1]).all()


@pytest.mark.parametrize("period_s", [0.4, 0.5, 0.6])
def test_at_two_pictures_per_second_every_moment_counts(period_s: float) -> None:
    trail = walk(period_s, 5)
    assert trail[-5:, 0] == pytest.approx(np.arange(5) * period_s)
    assert np.isnan(trail[:-5]).all()


def test_at_twenty_pictures_per_second_a_trail_is_seconds_long() -> None:
    trail = walk(0.05, 400)
    assert trail[-1, 0] == pytest.approx(399 * 0.05)  # now
    steps = np.diff(trail[:-1, 0])
    assert steps == pytest.approx(0.25)
    assert 4.0 < trail[-1, 0] - trail[0, 0] < 6.0


def test_between_two_places_the_last_one_is_now() -> None:
    for moments in range(2, 12):
        assert walk(0.05, moments)[-1, 0] == pytest.approx((moments - 1) * 0.05)


def test_a_full_trail_forgets_the_oldest_place() -> None:
    trail = walk(0.5, TRAIL_LENGTH + 3)
    assert trail[0, 0] == pytest.approx(1.5)
    assert not np.isnan(trail).any()


def test_trails_grow_apart_and_leave_their_arguments_alone() -> None:
    trails, times = begun(np.zeros((2, 2)), 0.0)
    times = np.array([0.0, 0.9])
    kept, kept_times = trails.copy(), times.copy()
    after, after_times = grown(trails, times, np.ones((2, 2)), 1.0)
    assert after_times.tolist() == [1.0, 0.9]
    assert after[0, -2:, 0].tolist() == [0.0, 1.0]
    assert np.isnan(after[1, -2, 0]) and after[1, -1, 0] == 1.0
    np.testing.assert_array_equal(trails, kept)
    np.testing.assert_array_equal(times, kept_times)


def test_no_trails_at_all() -> None:
    trails, times = begun(np.zeros((0, 2)), 0.0)
    trails, times = grown(trails, times, np.zeros((0, 2)), 1.0)
    assert trails.shape == (0, TRAIL_LENGTH, 2) and times.shape == (0,)
