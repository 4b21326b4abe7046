"""The published tracker: boxes that lie where a track is expected take its id.

n is the number of boxes, m that of tracks, k that of the kinds that are tracked.
Source: CenterPoint's tracker, and StreamPETR's edition of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.structures import DatasetSpec, GlobalBoxes, Pose
from streampetr_vit.structures.tracks import Tracks
from streampetr_vit.tracking.matching import assign, distances_m, match_greedily
from streampetr_vit.tracking.rules import (
    check_flag,
    check_number,
    check_whole,
    checked_radii,
    radii_of,
)
from streampetr_vit.tracking.sightings import UNTRACKED, Sightings, kinds_of_labels, unseen
from streampetr_vit.tracking.table import TrackTable
from streampetr_vit.tracking.tracker import Tracker, TrackerStep, check_moment

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class GreedyRules:
    """What `GreedyTracker` does.

    Attributes:
        radii: how far from where a track is expected its next box may lie. "uniform": 2.5 m;
            "per_class": CenterPoint's radii, from 1 m for pedestrians to 13 m for motorcycles; or
            metres by the name of the kind. A kind that has no radius so has 2.5 m.
        hungarian: match by the sum of all distances, not box by box.
        score_threshold: of the boxes that get ids.
        max_age: a track that this many moments in a row do not show ends.
        keep_s: it does not end before it was out of sight for so many seconds, for cameras that
            are faster than the two pictures per second of nuScenes.
        forget_when_empty: a moment without boxes ends all tracks.
    """

    radii: Literal["uniform", "per_class"] | Mapping[str, float] = "uniform"
    hungarian: bool = False
    score_threshold: float = 0.25
    max_age: int = 3
    keep_s: float = 1.25
    forget_when_empty: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", checked_radii(self.radii))
        for name in ("hungarian", "forget_when_empty"):
            check_flag(name, getattr(self, name))
        check_number("score_threshold", self.score_threshold, "a number from 0 to 1", most=1.0)
        check_whole("max_age", self.max_age)
        check_number("keep_s", self.keep_s, "seconds, 0 or more")

    @staticmethod
    def streampetr() -> GreedyRules:
        """Those of StreamPETR's script."""
        return GreedyRules(keep_s=0.0)

    @staticmethod
    def centerpoint() -> GreedyRules:
        """Those of CenterPoint's script."""
        return GreedyRules("per_class", score_threshold=0.0, keep_s=0.0, forget_when_empty=True)


class GreedyTracker(Tracker):
    """Ids by position and velocity alone; any detector's boxes will do.

    Each box is moved back to the moment before by its velocity. There it takes the nearest track
    of its kind that no box before it has taken, within the radius.

    Args:
        spec: classes of the boxes.
        rules: what counts as near, and when a track ends.
    """

    name: ClassVar[str] = "greedy"
    reads_memory: ClassVar[bool] = False

    def __init__(self, spec: DatasetSpec, rules: GreedyRules | None = None) -> None:
        super().__init__(spec)
        self.rules = GreedyRules() if rules is None else rules
        names, self._kind_of_label = kinds_of_labels(spec)
        self._radii_m = radii_of(names, self.rules.radii)

    def step(
        self, table: TrackTable, boxes: GlobalBoxes, timestamp_s: float, vehicle_to_world: Pose
    ) -> TrackerStep:
        """See `Tracker`."""
        check_moment(table, boxes, timestamp_s)
        lag_s = table.passed_s(timestamp_s)
        seen = Sightings.of(boxes, self.spec)
        table, sources = self.advance(table, seen, lag_s, timestamp_s)
        shown_now = table[: len(sources)]
        tracks = Tracks(
            ids=shown_now.ids,
            ages_s=timestamp_s - shown_now.first_seen_s,
            scores=seen.scores[sources],
            trails_m=shown_now.trails_m,
        )
        return TrackerStep(tracks.spread(sources, len(boxes)), table)

    def advance(
        self, table: TrackTable, seen: Sightings, lag_s: float, timestamp_s: float
    ) -> tuple[TrackTable, IntArray]:
        """The tracks after a moment. Pure.

        Args:
            table: m tracks of the moment before.
            seen: all n boxes of the moment, best first.
            lag_s: time since the moment before, 0 in a scene's first.
            timestamp_s: of the moment.

        Returns:
            The tracks: those that go on, in the order of the boxes, then the new ones, then those
            that the moment does not show; and the boxes, int64, of all but the last.
        """
        kinds = self._kind_of_label[seen.labels]
        usable = np.flatnonzero((kinds != UNTRACKED) & (seen.scores >= self.rules.score_threshold))
        if not len(usable) and self.rules.forget_when_empty:
            return replace(table[:0], timestamp_s=timestamp_s), usable
        seen, kinds = seen[usable], kinds[usable]
        rows, columns, new, left = self._matched(table, seen, kinds, lag_s)
        begun = seen[new].begin(table.next_id, lag_s, timestamp_s)
        lost = table[left]
        kept = (lost.ages < self.rules.max_age) | (
            timestamp_s - lost.last_seen_s < self.rules.keep_s
        )
        gone_on = seen[rows].go_on(table[columns], lag_s, timestamp_s)
        after = gone_on.joined(begun, unseen(lost[kept], timestamp_s))
        sources = usable[np.concatenate([rows, new])]
        return replace(after, next_id=begun.next_id), sources

    def _matched(
        self, table: TrackTable, seen: Sightings, kinds: IntArray, lag_s: float
    ) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Boxes and tracks that belong together, boxes without a track, tracks without a box."""
        # At the moment before. In float32 as published, so that the same lies within a radius.
        expected = seen.centers_m - (seen.velocities_mps * lag_s).astype(np.float32)
        distances = distances_m(expected, table.centers_m)  # (n, m)
        same = kinds[:, None] == self._kind_of_label[table.labels]
        valid = same & (distances <= self._radii_m[kinds][:, None])
        if not self.rules.hungarian:
            rows, columns = match_greedily(distances, valid)
            return rows, columns, _others(rows, len(seen)), _others(columns, len(table))
        # Quirk: a track whose partner is no valid one ends at once, and that box comes last among
        # the new ones.
        rows, columns = assign(distances, valid)
        good = valid[rows, columns]
        new = np.concatenate([_others(rows, len(seen)), rows[~good]])
        return rows[good], columns[good], new, _others(columns, len(table))


def _others(taken: IntArray, count: int) -> IntArray:
    """The indexes below `count` that are not taken."""
    free = np.ones(count, dtype=bool)
    free[taken] = False
    return np.flatnonzero(free)
