"""The lineage tracker: an id travels with the object's query in the network's memory.

c is the number of candidates, o that of objects, m that of tracks.
Source: the specification's lineage tracker. That an id goes with a propagated query is Sparse4Dv3's
idea.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.structures import DatasetSpec, GlobalBoxes, Pose
from streampetr_vit.structures.tracks import NO_ID, Tracks
from streampetr_vit.tracking.candidates import (
    NO_TRACK,
    Candidates,
    candidates_of,
    first_of_each,
    of_kind,
)
from streampetr_vit.tracking.duplicates import (
    DEFAULT_NEAR_M,
    NEAR_M,
    Footprints,
    representatives,
    yaws_of,
)
from streampetr_vit.tracking.matching import distances_m, match_greedily
from streampetr_vit.tracking.rules import (
    check_choice,
    check_flag,
    check_number,
    check_whole,
    checked_radii,
    radii_of,
)
from streampetr_vit.tracking.sightings import kinds_of_labels, unseen
from streampetr_vit.tracking.table import TrackTable
from streampetr_vit.tracking.tracker import Tracker, TrackerStep, check_moment

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LineageRules:
    """What `LineageTracker` does.

    Attributes:
        min_score: weaker boxes get no id. The ids of their queries stay in the memory.
        min_new_score: only boxes from this score on begin a track.
        radii: how far from where a track is expected its next box may lie, see `GreedyRules`.
        gate_growth: in addition, this part of the way that the track goes until it is seen again.
        gate_limit_m: but never farther than this, where the memory says that it is the same object.
        class_hold: a query keeps the class of its track as long as its score with that class is
            this part of its best score, or more. 1 takes the best class always. An id has one
            class, so that an object that changes its class gets a new id.
        merge: several boxes of one object get one id, see `duplicates`.
        match_lost: a box may also have the track that is near by place and velocity, as in
            `GreedyTracker`. False goes by the memory alone.
        memory_bonus_m: among the tracks that a box may have, that of its query counts as so much
            nearer.
        memory_first: boxes whose queries bring an id take it before all others. A network whose
            learned queries find again what the memory has is better off without: then the query
            of the memory is often the worse box of the object, or none.
        max_age, keep_s: of tracks that are matched so; see `GreedyRules`.
        keep_lineage_s: the id of a track that was out of sight for longer does not come back, not
            even with its query.
        max_tracks: of those that are out of sight, at most so many are kept, the last seen.
        score: of a track: "detection" is that of its box, "mean" that of all its boxes so far.
    """

    min_score: float = 0.1
    min_new_score: float = 0.25
    radii: Literal["uniform", "per_class"] | Mapping[str, float] = "uniform"
    gate_growth: float = 0.5
    gate_limit_m: float = 4.0
    class_hold: float = 0.7
    merge: bool = True
    match_lost: bool = True
    memory_bonus_m: float = 1.0
    memory_first: bool = False
    max_age: int = 3
    keep_s: float = 1.25
    keep_lineage_s: float = 5.0
    max_tracks: int = 1000
    score: Literal["detection", "mean"] = "detection"

    def __post_init__(self) -> None:
        object.__setattr__(self, "radii", checked_radii(self.radii))
        for name in ("min_score", "min_new_score"):
            check_number(name, getattr(self, name), "a number from 0 to 1", most=1.0)
        check_number("class_hold", self.class_hold, "a number above 0, at most 1", 1e-6, 1.0)
        for name in ("gate_growth", "gate_limit_m", "memory_bonus_m", "keep_s", "keep_lineage_s"):
            check_number(name, getattr(self, name), "a number, 0 or more")
        for name in ("max_age", "max_tracks"):
            check_whole(name, getattr(self, name))
        for name in ("merge", "match_lost", "memory_first"):
            check_flag(name, getattr(self, name))
        check_choice("score", self.score, ("detection", "mean"))


@dataclass(frozen=True, eq=False)
class Claims:
    """Objects that the memory says to be a track. k is their number.

    Attributes:
        objects: (k,) int64, candidate that stands for the object, each once.
        tracks: (k,) int64, row of the track.
        missed_m: (k,) float64, how far the box lies from where the track is expected.
    """

    objects: IntArray
    tracks: IntArray
    missed_m: FloatArray


class LineageTracker(Tracker):
    """Ids that the network's own memory carries.

    Whoever calls `step` tells the memory which ids the queries have, and the boxes of the next
    moment bring them. `update` does not: then all ids are those of matching by place.

    Args:
        spec: classes of the boxes.
        rules: thresholds and distances.
    """

    name: ClassVar[str] = "lineage"
    reads_memory: ClassVar[bool] = True

    def __init__(self, spec: DatasetSpec, rules: LineageRules | None = None) -> None:
        super().__init__(spec)
        self.rules = LineageRules() if rules is None else rules
        names, self._kind_of_label = kinds_of_labels(spec)
        self._radii_m = radii_of(names, self.rules.radii)
        self._near_m = np.array([NEAR_M.get(name, DEFAULT_NEAR_M) for name in names])  # (k,)

    def step(
        self, table: TrackTable, boxes: GlobalBoxes, timestamp_s: float, vehicle_to_world: Pose
    ) -> TrackerStep:
        """See `Tracker`.

        Raises:
            InputError: as there, or the boxes do not say of which query they are.
        """
        check_moment(table, boxes, timestamp_s)
        found = candidates_of(
            boxes,
            table,
            self.spec,
            self._kind_of_label,
            self.rules.min_score,
            self.rules.class_hold,
        )
        here_m = vehicle_to_world.translation_m[:2]
        stand_for = self._merged(boxes, found, here_m)
        claims = self._claims(table, found, stand_for, timestamp_s)
        tracks = self._assigned(table, found, stand_for, claims, timestamp_s, here_m)
        return self._step(table, boxes, found, stand_for, tracks, timestamp_s)

    def _merged(self, boxes: GlobalBoxes, found: Candidates, here_m: FloatArray) -> IntArray:
        """(c,) int64, the candidate that stands for the object of each."""
        if not self.rules.merge:
            return np.arange(len(found))
        rows = found.seen.rows
        footprints = Footprints(
            centers_m=found.seen.centers_m,
            sizes_m=boxes.size_wlh_m[rows][:, [1, 0]],  # w, l, h -> l, w
            yaws_rad=yaws_of(boxes.rotation_wxyz[rows]),
            kinds=found.kinds,
            near_m=self._near_m[found.kinds],
        )
        return representatives(footprints, here_m)

    def _claims(
        self, table: TrackTable, found: Candidates, stand_for: IntArray, timestamp_s: float
    ) -> Claims:
        """What the memory says: of each object at most one track, the one that was seen most often.

        That may be the track of another box than the one that stands for the object: which of them
        is the best changes from moment to moment.
        """
        same = of_kind(table, found.tracks, found.kinds, self._kind_of_label)
        claimants = np.flatnonzero(same)
        rows = found.tracks[claimants]
        expected = _expected_m(table, timestamp_s)[rows]
        missed_m = np.hypot(*(found.seen.centers_m[claimants] - expected).T)
        # A query may have gone over to another object.
        sound = missed_m < self._gates_m(table, timestamp_s)[rows]
        sound &= timestamp_s - table.last_seen_s[rows] < self.rules.keep_lineage_s
        claimants, rows, missed_m = claimants[sound], rows[sound], missed_m[sound]
        longest = first_of_each(stand_for[claimants], -table.sightings[rows], missed_m)
        return Claims(stand_for[claimants[longest]], rows[longest], missed_m[longest])

    def _gates_m(self, table: TrackTable, timestamp_s: float) -> FloatArray:
        """(m,) how far from where it is expected a query of a track may be."""
        kinds = self._kind_of_label[table.labels]
        way_m = np.hypot(*table.velocities_mps.T) * (timestamp_s - table.last_seen_s)
        gates_m = self._radii_m[kinds] + self.rules.gate_growth * way_m
        return np.minimum(gates_m, self.rules.gate_limit_m)

    def _assigned(
        self,
        table: TrackTable,
        found: Candidates,
        stand_for: IntArray,
        claims: Claims,
        timestamp_s: float,
        here_m: FloatArray,
    ) -> IntArray:
        """(c,) int64, rows of the tracks that go on, or `NO_TRACK`.

        Only a candidate that stands for an object has one. Of the tracks that it may have, it takes
        the nearest that no candidate before it has taken.
        """
        objects = self._in_order(stand_for, claims)
        distances, valid = self._by_place(table, found, objects, timestamp_s, here_m)
        place = np.empty(len(found), dtype=np.int64)
        place[objects] = np.arange(len(objects))
        pairs = (place[claims.objects], claims.tracks)
        by_place = np.where(valid[pairs], distances[pairs], np.inf)
        distances[pairs] = np.minimum(by_place, claims.missed_m) - self.rules.memory_bonus_m
        if self.rules.memory_first:
            distances[pairs] = -np.inf
        valid[pairs] = True
        rows, columns = match_greedily(distances, valid)
        tracks = np.full(len(found), NO_TRACK, dtype=np.int64)
        tracks[objects[rows]] = columns
        return tracks

    def _in_order(self, stand_for: IntArray, claims: Claims) -> IntArray:
        """(o,) int64, candidates that stand for an object, in the order in which they choose.

        That is the order of their scores; if the memory rules, those with a claim come first.
        """
        objects = np.flatnonzero(stand_for == np.arange(len(stand_for)))
        if not self.rules.memory_first:
            return objects
        missed_m = np.full(len(stand_for), np.inf)
        missed_m[claims.objects] = claims.missed_m
        return objects[np.argsort(missed_m[objects], kind="stable")]

    def _by_place(
        self,
        table: TrackTable,
        found: Candidates,
        objects: IntArray,
        timestamp_s: float,
        here_m: FloatArray,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(o, m) distances of the o objects to the tracks, and which of the pairs may be."""
        seen, kinds = found.seen[objects], found.kinds[objects]
        before_m = seen.centers_m - seen.velocities_mps * table.passed_s(timestamp_s)
        # From the vehicle on: the distances are float32, which is coarse far from the map's origin.
        distances = distances_m(before_m - here_m, table.centers_m - here_m)
        if not self.rules.match_lost:
            return distances, np.zeros(distances.shape, dtype=np.bool_)
        valid = kinds[:, None] == self._kind_of_label[table.labels]
        valid &= distances <= self._radii_m[kinds][:, None]
        valid &= (table.ages <= self.rules.max_age) | (
            timestamp_s - table.last_seen_s < self.rules.keep_s
        )
        return distances, valid

    def _step(
        self,
        table: TrackTable,
        boxes: GlobalBoxes,
        found: Candidates,
        stand_for: IntArray,
        tracks: IntArray,
        timestamp_s: float,
    ) -> TrackerStep:
        """What becomes of the candidates (c,), of which these go on with the `tracks` (c,)."""
        going = np.flatnonzero(tracks != NO_TRACK)
        strong = found.seen.scores >= self.rules.min_new_score
        new = (stand_for == np.arange(len(found))) & (tracks == NO_TRACK) & strong
        chosen = np.concatenate((going, np.flatnonzero(new)))
        lag_s = table.passed_s(timestamp_s)
        gone_on = found.seen[going].go_on(table[tracks[going]], lag_s, timestamp_s)
        begun = found.seen[new].begin(table.next_id, lag_s, timestamp_s)
        lost = self._out_of_sight(table, tracks[going], timestamp_s)
        after = replace(gone_on.joined(begun, lost), next_id=begun.next_id, timestamp_s=timestamp_s)
        in_sight = after[: len(chosen)]
        scores = found.seen.scores[chosen]
        if self.rules.score == "mean":
            scores = in_sight.score_sums / in_sight.sightings
        ages_s = timestamp_s - in_sight.first_seen_s
        named = Tracks(in_sight.ids, ages_s, scores, in_sight.trails_m)
        ids = np.full(len(found), NO_ID, dtype=np.int64)
        ids[chosen] = in_sight.ids
        return TrackerStep(
            tracks=named.spread(found.seen.rows[chosen], len(boxes)),
            table=after,
            queries=found.queries,
            query_ids=ids[stand_for],
        )

    def _out_of_sight(self, table: TrackTable, seen: IntArray, timestamp_s: float) -> TrackTable:
        """The tracks that this moment does not show, without those that are given up."""
        rules, gone_s = self.rules, timestamp_s - table.last_seen_s
        kept = gone_s < max(rules.keep_s, rules.keep_lineage_s)
        if rules.match_lost:
            kept |= table.ages < rules.max_age
        kept[seen] = False
        rows = np.flatnonzero(kept)
        if len(rows) > rules.max_tracks:
            rows = rows[np.argsort(gone_s[rows], kind="stable")[: rules.max_tracks]]
        lost = table[rows]
        # By the time that has passed, unlike the published trackers: moments may be of any rate.
        return replace(unseen(lost, timestamp_s), centers_m=_expected_m(table, timestamp_s)[rows])


def _expected_m(table: TrackTable, timestamp_s: float) -> FloatArray:
    """(m, 2) where the tracks are expected now."""
    return table.centers_m + table.velocities_mps * table.passed_s(timestamp_s)
