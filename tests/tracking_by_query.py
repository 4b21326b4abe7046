"""A tracker whose ids are easy to foresee, for tests of those that call one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streampetr_vit.structures import GlobalBoxes, Pose, Tracks
from streampetr_vit.structures.tracks import TRAIL_LENGTH
from streampetr_vit.tracking.table import TrackTable
from streampetr_vit.tracking.tracker import Tracker, TrackerStep, check_moment


class QueryTracker(Tracker):
    """Every query is an object: it has the id of its lineage, or a new one."""

    name = "query"
    reads_memory = True

    def step(
        self, table: TrackTable, boxes: GlobalBoxes, timestamp_s: float, vehicle_to_world: Pose
    ) -> TrackerStep:
        """See `Tracker`."""
        check_moment(table, boxes, timestamp_s)
        assert boxes.queries is not None and boxes.lineages is not None
        queries, first = np.unique(boxes.queries, return_index=True)
        ids = boxes.lineages[first].copy()
        new = ids < 0
        ids[new] = table.next_id + np.arange(new.sum())
        tracks = Tracks(
            ids=ids[np.searchsorted(queries, boxes.queries)],
            ages_s=np.full(len(boxes), timestamp_s),
            scores=boxes.scores,
            trails_m=np.full((len(boxes), TRAIL_LENGTH, 2), np.nan),
        )
        next_id = table.next_id + int(new.sum())
        table = replace(table, next_id=next_id, timestamp_s=timestamp_s)
        return TrackerStep(tracks, table, queries, ids)
