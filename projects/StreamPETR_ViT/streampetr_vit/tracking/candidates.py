"""Boxes of a moment that may get ids: one of each query of the network.

n is the number of boxes, c that of candidates, m that of tracks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.errors import InputError
from streampetr_vit.structures import DatasetSpec, GlobalBoxes
from streampetr_vit.tracking.sightings import UNTRACKED, Sightings
from streampetr_vit.tracking.table import TrackTable

IntArray = NDArray[np.int64]

NO_TRACK = -1


@dataclass(frozen=True, eq=False)
class Candidates:
    """One box of each query, the best first.

    Attributes:
        seen: c boxes.
        kinds: (c,) int64 of `kinds_of_labels`.
        queries: (c,) int64, see `Detections`.
        tracks: (c,) int64, row in the table of the track that the query's entry of the memory
            belongs to, or `NO_TRACK`.
    """

    seen: Sightings
    kinds: IntArray
    queries: IntArray
    tracks: IntArray

    def __len__(self) -> int:
        return len(self.kinds)


def candidates_of(
    boxes: GlobalBoxes,
    table: TrackTable,
    spec: DatasetSpec,
    kind_of_label: IntArray,
    min_score: float,
    class_hold: float,
) -> Candidates:
    """The candidates of a moment: of each query its best box of a tracked class.

    Args:
        boxes: n boxes; a query may have several, of several classes.
        table: m tracks of the moment before.
        spec: classes of the boxes.
        kind_of_label: see `kinds_of_labels`.
        min_score: weaker boxes are none.
        class_hold: a query keeps the class of its track as long as its score with that class is
            this part of its best score, or more.

    Raises:
        InputError: the boxes do not say of which query they are, or have a class that the data set
            does not have.
    """
    if boxes.queries is None or boxes.lineages is None:
        raise InputError(
            f"sample {boxes.sample_token}: its boxes do not say which query of the network they "
            "are of, and the lineage tracker goes by that; give it what a Stream or a Predictor "
            'has detected, or take tracker="greedy"'
        )
    seen = Sightings.of(boxes, spec)
    kinds = kind_of_label[seen.labels]
    tracks = _rows_of(table.ids, boxes.lineages)
    usable = np.flatnonzero((kinds != UNTRACKED) & (seen.scores >= min_score))
    scores, queries, tracks = seen.scores[usable], boxes.queries[usable], tracks[usable]
    held = of_kind(table, tracks, kinds[usable], kind_of_label)
    chosen = first_of_each(queries, -np.where(held, scores / class_hold, scores))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    rows = usable[chosen]
    return Candidates(seen[rows], kinds[rows], queries[chosen], tracks[chosen])


def of_kind(
    table: TrackTable, tracks: IntArray, kinds: IntArray, kind_of_label: IntArray
) -> NDArray[np.bool_]:
    """(k,) bool, whether these are rows (k,) of tracks, and the tracks are of the kinds (k,)."""
    found = tracks != NO_TRACK
    found[found] = kind_of_label[table.labels[tracks[found]]] == kinds[found]
    return found


def first_of_each(groups: IntArray, *keys: NDArray) -> IntArray:
    """Indexes of the first member of each group, the groups in their order.

    Args:
        groups: (k,) number of the group.
        keys: (k,) each; the members are in the order of the first key, equal ones in that of the
            second, and so on.
    """
    order = np.lexsort((*reversed(keys), groups))
    ordered = groups[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def _rows_of(ids: IntArray, wanted: IntArray) -> IntArray:
    """Where the ids (m,) have each of the wanted (n,), or `NO_TRACK`."""
    if not len(ids):
        return np.full(len(wanted), NO_TRACK, dtype=np.int64)
    order = np.argsort(ids)
    place = np.searchsorted(ids, wanted, sorter=order)
    rows = order[np.minimum(place, len(ids) - 1)]
    return np.where(ids[rows] == wanted, rows, NO_TRACK)
