"""A network that sees what a test says, with a memory that carries the ids of a tracker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import DatasetSpec, GlobalBoxes, Pose, Tracks
from streampetr_vit.structures.tracks import NO_ID
from streampetr_vit.tracking.lineage import LineageRules, LineageTracker
from streampetr_vit.tracking.table import TrackTable
from streampetr_vit.tracking.tracker import Tracker, TrackerStep

LEARNED = 1000  # queries; those of the memory's entries come after them
WIDTH_LENGTH_M = {"pedestrian": (0.7, 0.7), "bus": (3.0, 11.0), "truck": (2.5, 7.0)}


@dataclass(frozen=True)
class Shown:
    """What a query says in one moment.

    Attributes:
        query: its name. A query of that name in the memory is the same one.
        name: of the class.
        place: x, y in metres, in the world.
        velocity: x, y in metres per second.
        also: other classes of the same query, and their scores.
    """

    query: str
    name: str
    place: tuple[float, float]
    score: float = 0.5
    velocity: tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0
    also: tuple[tuple[str, float], ...] = ()


class ToyNetwork:
    """Shows moments to a tracker.

    Attributes:
        memory: name of a query -> id that its entry carries.
        table, step: of the last moment.
        vehicle_m: x, y of the vehicle.
    """

    def __init__(
        self,
        tracker: Tracker | None = None,
        spec: DatasetSpec = NUSCENES,
        vehicle_m: tuple[float, float] = (0.0, 0.0),
        **rules: object,
    ) -> None:
        self.tracker = tracker or LineageTracker(spec, LineageRules(**rules))
        self.memory: dict[str, int] = {}
        self.table = TrackTable.empty()
        self.step: TrackerStep | None = None
        self.vehicle_m = vehicle_m

    def see(self, time_s: float, shown: Sequence[Shown], remembered: bool = True) -> dict[str, int]:
        """The id of each query after a moment, `NO_ID` where it has none."""
        numbers = self._numbers(shown)
        boxes = self.boxes(shown)
        step = self.tracker.step(self.table, boxes, time_s, self.pose())
        self.table, self.step = step.table, step
        if remembered:
            carried = {query: self.memory.get(query, NO_ID) for query in numbers}
            given = dict(zip(step.queries.tolist(), step.query_ids.tolist(), strict=True))
            self.memory = {q: given.get(numbers[q], carried[q]) for q in numbers}
        ids = step.tracks.ids.tolist()
        best = {number: NO_ID for number in numbers.values()}
        for number, number_id in zip(boxes.queries.tolist(), ids, strict=True):
            best[number] = max(best[number], number_id)
        return {query: best[number] for query, number in numbers.items()}

    def pose(self) -> Pose:
        """Of the vehicle in the world."""
        return Pose(np.array([*self.vehicle_m, 0.0]), np.array([1.0, 0, 0, 0]))

    def boxes(self, shown: Sequence[Shown]) -> GlobalBoxes:
        """The boxes of a moment, best first."""
        numbers = self._numbers(shown)
        entries = [
            (score, name, one)
            for one in shown
            for name, score in ((one.name, one.score), *one.also)
        ]
        entries.sort(key=lambda entry: -entry[0])
        ones = [one for _, _, one in entries]
        sizes = [WIDTH_LENGTH_M.get(name, (2.0, 4.6)) for _, name, _ in entries]
        return GlobalBoxes(
            sample_token="a moment",
            center_global_m=np.array([(*one.place, 1.0) for one in ones]).reshape(-1, 3),
            size_wlh_m=np.array([(*size, 1.5) for size in sizes]).reshape(-1, 3),
            rotation_wxyz=np.array(
                [(np.cos(one.yaw / 2), 0, 0, np.sin(one.yaw / 2)) for one in ones]
            ).reshape(-1, 4),
            velocity_global_mps=np.array([one.velocity for one in ones]).reshape(-1, 2),
            scores=np.array([score for score, _, _ in entries]),
            class_names=tuple(name for _, name, _ in entries),
            attribute_names=("",) * len(entries),
            rows=np.arange(len(entries)),
            queries=np.array([numbers[one.query] for one in ones], dtype=np.int64),
            lineages=np.array([self.memory.get(one.query, NO_ID) for one in ones], np.int64),
        )

    def _numbers(self, shown: Sequence[Shown]) -> dict[str, int]:
        slots = list(self.memory)
        return {
            one.query: LEARNED + slots.index(one.query) if one.query in slots else place
            for place, one in enumerate(shown)
        }


def ids_of(tracks: Tracks) -> list[int]:
    """The ids that were given, in the order of the boxes."""
    return tracks.ids[tracks.ids != NO_ID].tolist()
