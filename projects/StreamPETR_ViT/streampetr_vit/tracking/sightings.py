"""What a moment shows of the objects that are tracked, and what becomes of their tracks.

n is the number of sightings, C that of the classes of the data set.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.errors import InputError
from streampetr_vit.structures import DatasetSpec, GlobalBoxes
from streampetr_vit.texts import shown
from streampetr_vit.tracking.classes import tracked_kinds
from streampetr_vit.tracking.table import TrackTable
from streampetr_vit.tracking.trails import begun, grown

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

UNTRACKED = -1


@dataclass(frozen=True, eq=False)
class Sightings:
    """Boxes that a tracker may give ids to, as columns.

    Attributes:
        rows: (n,) int64, which of the moment's boxes each is.
        labels: (n,) int64, index into the classes of the data set.
        centers_m: (n, 2) float64, x and y in the world frame.
        velocities_mps: (n, 2) float64 in the world frame.
        scores: (n,) float64.
    """

    rows: IntArray
    labels: IntArray
    centers_m: FloatArray
    velocities_mps: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Sightings:
        """Some of them, by a mask or by indexes."""
        return Sightings(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def of(boxes: GlobalBoxes, spec: DatasetSpec) -> Sightings:
        """All boxes of a moment, in their order.

        Raises:
            InputError: a box has a class that the data set does not have.
        """
        label_of = {name: label for label, name in enumerate(spec.class_names)}
        try:
            labels = [label_of[name] for name in boxes.class_names]
        except KeyError as error:
            raise InputError(
                f"sample {boxes.sample_token}: a box is of class {shown(error.args[0])}; the "
                f"classes are {', '.join(spec.class_names)}"
            ) from error
        return Sightings(
            rows=np.arange(len(boxes)),
            labels=np.array(labels, dtype=np.int64),
            centers_m=boxes.center_global_m[:, :2],
            velocities_mps=boxes.velocity_global_mps,
            scores=boxes.scores,
        )

    def begin(self, next_id: int, lag_s: float, timestamp_s: float) -> TrackTable:
        """A table of new tracks, one for each, with ids from `next_id` on.

        Args:
            next_id: the first of the new ids.
            lag_s: time since the moment before; 0 in a scene's first.
            timestamp_s: now.
        """
        count = len(self)
        now, once = np.full(count, float(timestamp_s)), np.ones(count, dtype=np.int64)
        trails, times = begun(self.centers_m, timestamp_s)
        return TrackTable(
            ids=next_id + np.arange(count),
            labels=self.labels,
            centers_m=self.centers_m,
            velocities_mps=self.velocities_mps,
            lags_s=np.full(count, float(lag_s)),
            ages=once,
            actives=once,
            first_seen_s=now,
            last_seen_s=now,
            sightings=once,
            score_sums=self.scores,
            trails_m=trails,
            trail_times_s=times,
            next_id=next_id + count,
            timestamp_s=timestamp_s,
        )

    def go_on(self, tracks: TrackTable, lag_s: float, timestamp_s: float) -> TrackTable:
        """The tracks of the moment before, of which each is seen again, row by row."""
        trails, times = grown(tracks.trails_m, tracks.trail_times_s, self.centers_m, timestamp_s)
        return replace(
            tracks,
            labels=self.labels,
            centers_m=self.centers_m,
            velocities_mps=self.velocities_mps,
            lags_s=np.full(len(self), float(lag_s)),
            ages=np.ones(len(self), dtype=np.int64),
            actives=tracks.actives + 1,
            last_seen_s=np.full(len(self), float(timestamp_s)),
            sightings=tracks.sightings + 1,
            score_sums=tracks.score_sums + self.scores,
            trails_m=trails,
            trail_times_s=times,
            timestamp_s=timestamp_s,
        )


def unseen(tracks: TrackTable, timestamp_s: float) -> TrackTable:
    """Tracks that this moment does not show: one moment older, and moved on.

    Quirk: they move by the time between the last moment that saw them and the one before it, not
    by the time since the last moment.
    """
    return replace(
        tracks,
        ages=tracks.ages + 1,
        actives=np.zeros_like(tracks.actives),
        centers_m=tracks.centers_m + tracks.velocities_mps * tracks.lags_s[:, None],
        timestamp_s=timestamp_s,
    )


def kinds_of_labels(spec: DatasetSpec) -> tuple[tuple[str, ...], IntArray]:
    """What is tracked.

    Returns:
        The kinds, and for each of the C labels the index of its kind, int64, or `UNTRACKED`.
    """
    kinds = tracked_kinds(spec)
    names = tuple(dict.fromkeys(kinds.values()))
    index = {name: names.index(kind) for name, kind in kinds.items()}
    return names, np.array([index.get(name, UNTRACKED) for name in spec.class_names], np.int64)
