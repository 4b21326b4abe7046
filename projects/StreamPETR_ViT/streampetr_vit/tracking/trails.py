"""Where a track has been. n is the number of tracks, T that of the places of a trail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.structures.tracks import TRAIL_LENGTH

FloatArray = NDArray[np.float64]

# The least time from place to place: every moment of nuScenes counts, which come every 0.5 s, and
# the trails of a camera with 20 pictures per second are seconds long too.
_STEP_S = 0.24


def begun(centers_m: FloatArray, timestamp_s: float) -> tuple[FloatArray, FloatArray]:
    """Trails of tracks that begin.

    Args:
        centers_m: (n, 2) x and y, in the world frame.
        timestamp_s: now.

    Returns:
        Trails (n, T, 2) as in `Tracks`, and the time (n,) of each, for `grown`.
    """
    trails = np.full((len(centers_m), TRAIL_LENGTH, 2), np.nan)
    trails[:, -1] = centers_m
    return trails, np.full(len(centers_m), float(timestamp_s))


def grown(
    trails_m: FloatArray, times_s: FloatArray, centers_m: FloatArray, timestamp_s: float
) -> tuple[FloatArray, FloatArray]:
    """Trails of tracks that are seen again.

    The last place is always that of now. It takes the stead of the one before as long as that is
    recent.

    Args:
        trails_m: (n, T, 2) of the moment before.
        times_s: (n,) when the last place of each was added, in seconds.
        centers_m: (n, 2) x and y now, in the world frame.
        timestamp_s: now.

    Returns:
        The new trails and times; the arguments stay as they are.
    """
    added = timestamp_s - times_s >= _STEP_S  # (n,)
    moved = np.concatenate([trails_m[:, 1:], trails_m[:, -1:]], axis=1)
    trails = np.where(added[:, None, None], moved, trails_m)
    trails[:, -1] = centers_m
    return trails, np.where(added, timestamp_s, times_s)
