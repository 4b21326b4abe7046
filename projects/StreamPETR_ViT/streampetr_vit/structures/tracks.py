"""Which object each box of a moment is.

n is the number of boxes, T that of the places of a trail.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_ID = -1
TRAIL_LENGTH = 20  # T: ten seconds of nuScenes


@dataclass(frozen=True, eq=False)
class Tracks:
    """Ids of the boxes of one moment, in the order of the boxes.

    Attributes:
        ids: (n,) int64; an object keeps its id, and no other object gets it. `NO_ID` for a box that
            no track has: it is too weak, of a class that is not tracked, or one of several boxes of
            the same object.
        ages_s: (n,) float64, seconds since the id was given; 0 where there is none.
        scores: (n,) float64 of the track, 0 where there is none.
        trails_m: (n, T, 2) float64, places x, y of the object in the world frame, the oldest first,
            the last one now; NaN in front where there are fewer.
    """

    ids: NDArray[np.int64]
    ages_s: NDArray[np.float64]
    scores: NDArray[np.float64]
    trails_m: NDArray[np.float64]

    @staticmethod
    def none(count: int) -> Tracks:
        """Of boxes without ids."""
        return Tracks(
            ids=np.full(count, NO_ID, dtype=np.int64),
            ages_s=np.zeros(count),
            scores=np.zeros(count),
            trails_m=np.full((count, TRAIL_LENGTH, 2), np.nan),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> Tracks:
        """Those of some of the boxes, by a mask or by indexes."""
        return Tracks(*(getattr(self, field.name)[rows] for field in fields(self)))

    def spread(self, rows: NDArray[np.int64], count: int) -> Tracks:
        """Those of `count` boxes, of which these are the boxes `rows`; the others have no id."""
        spread = Tracks.none(count)
        for field in fields(self):
            getattr(spread, field.name)[rows] = getattr(self, field.name)
        return spread
