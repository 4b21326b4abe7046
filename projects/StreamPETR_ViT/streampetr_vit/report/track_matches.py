"""Which true object each predicted box is at, and where objects change their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from streampetr_vit.report.track_boxes import TrackBoxes

MATCH_DISTANCE_M = 2.0  # Source: `dist_th_tp` of the devkit's tracking_nips_2019
_NO_MATCH = 1e9

Pairs = list[tuple[int, int]]  # rows of true and of predicted boxes, in the order of time


def matched(true: TrackBoxes, predicted: TrackBoxes) -> Pairs:
    """Pairs boxes of each frame: one to one, of one class, within `MATCH_DISTANCE_M`.

    An object stays with its id of before where it can, as in the official evaluation; the others
    are paired so that the sum of distances is smallest.
    """
    pairs: Pairs = []
    held: dict[str, str] = {}  # true id -> predicted id
    for frame in np.unique(true.frames):
        ours, theirs = (
            np.flatnonzero(true.frames == frame),
            np.flatnonzero(predicted.frames == frame),
        )
        distances = _distances(true[ours], predicted[theirs])
        stays = np.array(
            [held.get(name, "") == predicted.ids[theirs] for name in true.ids[ours]], dtype=bool
        ).reshape(distances.shape)
        # What stays costs less than anything else that could be gained.
        cost = distances - 1e3 * (stays & (distances < _NO_MATCH))
        for row, column in zip(*linear_sum_assignment(cost), strict=True):
            if distances[row, column] < _NO_MATCH:
                pairs.append((int(ours[row]), int(theirs[column])))
                held[str(true.ids[ours[row]])] = str(predicted.ids[theirs[column]])
    return pairs


def switches(true: TrackBoxes, predicted: TrackBoxes, pairs: Pairs) -> list[int]:
    """Rows of predicted boxes at which a true object got another id than before."""
    held: dict[str, str] = {}
    rows = []
    for ours, theirs in pairs:
        name, found = str(true.ids[ours]), str(predicted.ids[theirs])
        if held.get(name, found) != found:
            rows.append(theirs)
        held[name] = found
    return rows


def partners(true: TrackBoxes, predicted: TrackBoxes, pairs: Pairs) -> dict[str, str]:
    """Predicted id -> the true object that it is at most often, one to one.

    An id whose object has a better one is not among them.
    """
    shared = Counter((str(true.ids[ours]), str(predicted.ids[theirs])) for ours, theirs in pairs)
    objects, ids = true.names(), predicted.names()
    counts = _table(shared, objects, ids)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    chosen = zip(rows.tolist(), columns.tolist(), strict=True)
    return {ids[column]: objects[row] for row, column in chosen if counts[row, column] > 0}


def _table(
    shared: Counter[tuple[str, str]], objects: Sequence[str], ids: Sequence[str]
) -> NDArray[np.int64]:
    counts = [[shared[name, found] for found in ids] for name in objects]
    return np.array(counts, dtype=np.int64).reshape(len(objects), len(ids))


def _distances(true: TrackBoxes, predicted: TrackBoxes) -> NDArray[np.float64]:
    """(boxes, boxes) metres; `_NO_MATCH` where they cannot be the same object."""
    apart = true.places_m[:, None] - predicted.places_m[None]
    metres = np.hypot(apart[..., 0], apart[..., 1])
    fits = (true.kinds[:, None] == predicted.kinds[None]) & (metres <= MATCH_DISTANCE_M)
    return np.where(fits, metres, _NO_MATCH)
