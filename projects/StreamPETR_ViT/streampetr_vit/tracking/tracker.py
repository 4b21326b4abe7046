"""What every tracker is: a pure function from moment to moment, and an object that keeps its table.

n is the number of boxes of a moment, k that of queries.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.errors import InputError
from streampetr_vit.structures import DatasetSpec, GlobalBoxes, Pose
from streampetr_vit.structures.tracks import Tracks
from streampetr_vit.texts import shown
from streampetr_vit.tracking.table import TrackTable

IntArray = NDArray[np.int64]


def _no_queries() -> IntArray:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class TrackerStep:
    """What a tracker makes of a moment.

    Attributes:
        tracks: of the n boxes.
        table: for the next moment.
        queries: (k,) int64, queries of the network whose entries of the memory get an id.
        query_ids: (k,) int64, that id, or `NO_ID`.
    """

    tracks: Tracks
    table: TrackTable
    queries: IntArray = field(default_factory=_no_queries)
    query_ids: IntArray = field(default_factory=_no_queries)


class Tracker(ABC):
    """Gives the objects around one car ids that they keep from moment to moment.

    `step` is pure. `update` keeps the table for those who have one car and no wish to do so.

    Args:
        spec: classes of the boxes.

    Attributes:
        table: after the last `update`; it may be read and set.
    """

    name: ClassVar[str]
    reads_memory: ClassVar[bool]  # whether ids travel in the network's memory

    def __init__(self, spec: DatasetSpec) -> None:
        self.spec = spec
        self.table = TrackTable.empty()

    @abstractmethod
    def step(
        self,
        table: TrackTable,
        boxes: GlobalBoxes,
        timestamp_s: float,
        vehicle_to_world: Pose,
    ) -> TrackerStep:
        """The tracks of a moment.

        Args:
            table: of the moment before; `TrackTable.empty` in a scene's first.
            boxes: best first, in the world frame.
            timestamp_s: of the moment.
            vehicle_to_world: pose of the vehicle.

        Raises:
            InputError: the time goes back, a box has no velocity, or lacks what the tracker reads;
                names the sample.
        """

    def update(self, boxes: GlobalBoxes, timestamp_s: float, vehicle_to_world: Pose) -> Tracks:
        """The tracks of the next moment, see `step`."""
        step = self.step(self.table, boxes, timestamp_s, vehicle_to_world)
        self.table = step.table
        return step.tracks

    def reset(self) -> None:
        """Forgets all tracks: the next moment begins a scene, and ids begin at 1."""
        self.table = TrackTable.empty()


def check_moment(table: TrackTable, boxes: GlobalBoxes, timestamp_s: float) -> None:
    """Raises InputError unless a tracker can go on with these boxes at this time."""
    where = f"sample {boxes.sample_token}"
    if not math.isfinite(timestamp_s):
        raise InputError(f"{where}: its time is {shown(timestamp_s)}; a tracker needs seconds")
    if table.timestamp_s is not None and timestamp_s < table.timestamp_s:
        raise InputError(
            f"{where} is out of order: its time {timestamp_s:.6f} comes after "
            f"{table.timestamp_s:.6f}; give a scene's moments in their order, or call reset() "
            "before another scene"
        )
    if not np.isfinite(boxes.velocity_global_mps).all():
        raise InputError(
            f"{where}: a box has no velocity; a tracker predicts by it: give detections with "
            "velocities, 0 for what stands"
        )
