"""Which box goes on with which track. n is the number of boxes, m that of tracks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

IntArray = NDArray[np.int64]

# What a pair costs that must not be. Source: CenterPoint's tracker.
_FORBIDDEN = 1e18


def distances_m(places: NDArray[np.floating[Any]], others: NDArray[np.floating[Any]]) -> NDArray:
    """Distance of every place to every other one.

    Quirk: float32, as the published trackers have it. A kilometre from the origin of the map that
    is a tenth of a millimetre, and decides what is within a radius.

    Args:
        places: (n, 2) metres.
        others: (m, 2) metres.

    Returns:
        (n, m) float32, metres.
    """
    rows, columns = places.astype(np.float32), others.astype(np.float32)
    x, y = (rows[:, axis, None] - columns[:, axis] for axis in (0, 1))  # (n, m)
    # In place: with 300 boxes and tracks, most of the time goes into getting memory.
    x *= x
    y *= y
    x += y
    return np.sqrt(x, out=x)


def match_greedily(
    distances: NDArray[np.floating[Any]], valid: NDArray[np.bool_]
) -> tuple[IntArray, IntArray]:
    """Gives each row in turn the nearest column that is free and valid for it.

    Args:
        distances: (n, m), any unit.
        valid: (n, m), which pairs may be.

    Returns:
        Rows and columns of the pairs, int64, in the order of the rows. Of equally near columns the
        first is taken.
    """
    # Few pairs are valid: only these are walked in Python.
    rows, columns = np.divmod(np.flatnonzero(valid), max(valid.shape[1], 1))
    order = np.lexsort((distances[rows, columns], rows))  # stable: equal ones keep their order
    pairs, taken, last = [], set(), -1
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row != last and column not in taken:
            pairs.append((row, column))
            taken.add(column)
            last = row
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def assign(
    distances: NDArray[np.floating[Any]], valid: NDArray[np.bool_]
) -> tuple[IntArray, IntArray]:
    """Pairs with as many valid ones as there can be, and a small sum of their distances.

    Quirk: what is left over is paired too, although it is not valid. The published cost of such a
    pair is so high that metres get lost beside it: among several ways to have the most valid pairs,
    the solver may miss the shortest.

    Args:
        distances: (n, m) metres.
        valid: (n, m), which pairs may be.

    Returns:
        Rows and columns of the pairs, int64, in the order of the rows.
    """
    return linear_sum_assignment(np.where(valid, distances.astype(np.float64), _FORBIDDEN))
