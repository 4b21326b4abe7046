"""Pairs of boxes and tracks: greedy in the order of the boxes, Hungarian against brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from streampetr_vit.tracking.matching import (
    assign,
    distances_m,
    match_greedily,
)


def match_hungarian(distances: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The valid pairs of `assign`."""
    rows, columns = assign(distances, valid)
    good = valid[rows, columns]
    return rows[good], columns[good]


def pairs(found: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, int]]:
    rows, columns = found
    assert rows.dtype == columns.dtype == np.int64
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def one_by_one(distances: np.ndarray, valid: np.ndarray) -> list[tuple[int, int]]:
    """What `match_greedily` does, in plain loops."""
    free, found = set(range(valid.shape[1])), []
    for row in range(len(valid)):
        near = [column for column in sorted(free) if valid[row, column]]
        if near:
            best = min(near, key=lambda column: distances[row, column])
            free.remove(best)
            found.append((row, best))
    return found


def test_distances_are_those_of_float32() -> None:
    places, others = np.array([[600.0, 1600.0], [0.0, 0.0]]), np.array([[603.0, 1604.0]])
    found = distances_m(places, others)
    assert found.dtype == np.float32 and found.shape == (2, 1)
    assert found[0, 0] == 5.0
    # A shift that float32 cannot see 2000 km away is no distance.
    far = np.array([[2e6, 0.0]])
    assert distances_m(far, far + [0.01, 0.0])[0, 0] == 0.0
    assert distances_m(np.zeros((0, 2)), others).shape == (0, 1)


def test_the_first_row_takes_the_nearest_column_even_if_the_second_is_nearer_to_it() -> None:
    distances = np.array([[1.0, 2.0], [0.1, 3.0]])
    assert pairs(match_greedily(distances, distances < 9)) == [(0, 0), (1, 1)]
    assert pairs(match_hungarian(distances, distances < 9)) == [(0, 1), (1, 0)]


def test_a_nearer_column_that_is_not_valid_does_not_block() -> None:
    distances, valid = np.array([[1.0, 2.0]]), np.array([[False, True]])
    assert pairs(match_greedily(distances, valid)) == [(0, 1)]
    assert pairs(match_hungarian(distances, valid)) == [(0, 1)]


def test_of_equally_near_columns_the_first_is_taken() -> None:
    distances = np.ones((2, 3))
    assert pairs(match_greedily(distances, distances > 0)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 3)])
def test_without_valid_pairs_there_are_none(shape: tuple[int, int]) -> None:
    distances, valid = np.ones(shape), np.zeros(shape, dtype=bool)
    assert pairs(match_greedily(distances, valid)) == []
    assert pairs(match_hungarian(distances, valid)) == []


@pytest.mark.parametrize("seed", range(20))
def test_greedy_is_what_plain_loops_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 2))
    distances = rng.integers(0, 4, shape).astype(np.float32)  # with many equal ones
    valid = rng.random(shape) < 0.6
    assert pairs(match_greedily(distances, valid)) == one_by_one(distances, valid)


@pytest.mark.parametrize("seed", range(10))
def test_hungarian_is_the_best_of_all_ways(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = 4, int(rng.integers(4, 7))
    distances = rng.random((rows, columns))
    found = match_hungarian(distances, distances < 9)
    ways = permutations(range(columns), rows)
    best = min(distances[range(rows), list(way)].sum() for way in ways)
    assert len(found[0]) == rows
    assert distances[found].sum() == pytest.approx(best)


@pytest.mark.parametrize("seed", range(10))
def test_hungarian_has_as_many_valid_pairs_as_there_can_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances, valid = rng.random((5, 4)), rng.random((5, 4)) < 0.4
    rows, columns = match_hungarian(distances, valid)
    ways = permutations(range(5), 4)  # a row for each column
    most = max(valid[list(way), range(4)].sum() for way in ways)
    assert len(rows) == most and valid[rows, columns].all()
    assert len(assign(distances, valid)[0]) == 4  # pairs of what is left over too
