"""What a tracker remembers of one car's surroundings, as a value.

n is the number of tracks, T that of the places of a trail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.structures.tracks import TRAIL_LENGTH

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrackTable:
    """Tracks of one scene, and where it stands. Places are in the world frame.

    Attributes:
        ids: (n,) int64.
        labels: (n,) int64, index into the classes of the data set.
        centers_m: (n, 2) float64, x and y where the tracker expects the object.
        velocities_mps: (n, 2) float64, when it was last seen.
        lags_s: (n,) float64, time between the moment it was last seen and the one before that.
        ages: (n,) int64, 1 if it was seen in the last moment, and 1 more for each one since.
        actives: (n,) int64, of the last moments, one after the other, how many have seen it.
        first_seen_s, last_seen_s: (n,) float64.
        sightings: (n,) int64, moments that have seen it.
        score_sums: (n,) float64, sum of its scores in those.
        trails_m: (n, T, 2) float64, see `Tracks`.
        trail_times_s: (n,) float64, when the last place of the trail was added, see `grown`.
        next_id: id of the next new track.
        timestamp_s: of the last moment; None before the first.
    """

    ids: IntArray
    labels: IntArray
    centers_m: FloatArray
    velocities_mps: FloatArray
    lags_s: FloatArray
    ages: IntArray
    actives: IntArray
    first_seen_s: FloatArray
    last_seen_s: FloatArray
    sightings: IntArray
    score_sums: FloatArray
    trails_m: FloatArray
    trail_times_s: FloatArray
    next_id: int
    timestamp_s: float | None

    @staticmethod
    def empty(next_id: int = 1) -> TrackTable:
        """Before the first moment of a scene."""
        columns = {name: np.zeros((0, *shape), kind) for name, (shape, kind) in COLUMNS.items()}
        return TrackTable(**columns, next_id=next_id, timestamp_s=None)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> TrackTable:
        """Some of the tracks, by a mask or by indexes, at the same moment."""
        return replace(self, **{name: getattr(self, name)[rows] for name in COLUMNS})

    def passed_s(self, timestamp_s: float) -> float:
        """Time since the last moment; 0 in a scene's first."""
        return 0.0 if self.timestamp_s is None else timestamp_s - self.timestamp_s

    def joined(self, *others: TrackTable) -> TrackTable:
        """The tracks of this one, then those of the others, at the moment of this one."""
        parts = {name: [getattr(part, name) for part in (self, *others)] for name in COLUMNS}
        return replace(self, **{name: np.concatenate(part) for name, part in parts.items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    @staticmethod
    def of_columns(
        columns: Mapping[str, NDArray[Any]], next_id: int, timestamp_s: float | None
    ) -> TrackTable:
        """The inverse of `columns`.

        Raises:
            ValueError: a column is missing, or has another shape or dtype, or is not finite; or an
                id is there twice, or could be given again.
        """
        count = len(columns.get("ids", ()))
        for name, (shape, kind) in COLUMNS.items():
            column = columns.get(name)
            if column is None or column.shape != (count, *shape) or column.dtype != kind:
                raise ValueError(f"tracks have no column {name} of {count} rows")
            if name != "trails_m" and not np.isfinite(column).all():
                raise ValueError(f"the tracks' {name} has NaN or infinite numbers")
        ids = columns["ids"]
        if len(np.unique(ids)) != count or not ((ids >= 1) & (ids < next_id)).all():
            raise ValueError(f"the tracks' ids are not different ones from 1 to {next_id - 1}")
        return TrackTable(**columns, next_id=next_id, timestamp_s=timestamp_s)


# name -> shape of a row, dtype
COLUMNS: dict[str, tuple[tuple[int, ...], type]] = {
    "ids": ((), np.int64),
    "labels": ((), np.int64),
    "centers_m": ((2,), np.float64),
    "velocities_mps": ((2,), np.float64),
    "lags_s": ((), np.float64),
    "ages": ((), np.int64),
    "actives": ((), np.int64),
    "first_seen_s": ((), np.float64),
    "last_seen_s": ((), np.float64),
    "sightings": ((), np.int64),
    "score_sums": ((), np.float64),
    "trails_m": ((TRAIL_LENGTH, 2), np.float64),
    "trail_times_s": ((), np.float64),
}
