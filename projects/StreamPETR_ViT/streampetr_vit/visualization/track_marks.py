"""What is drawn of the objects that have ids: a colour and a label of each, and where it was.

n is the number of boxes, T that of the places of a trail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.structures import Objects
from streampetr_vit.structures.tracks import NO_ID
from streampetr_vit.visualization.colors import Color, id_color
from streampetr_vit.visualization.drawing import FloatArray

_SHORT_S = 9.95  # younger tracks have tenths of a second


@dataclass(frozen=True, eq=False)
class TrackMarks:
    """Marks of boxes, in their order.

    Attributes:
        ids: (n,) int64, `NO_ID` for a box that has none.
        ages_s: (n,) float64, seconds since the id was given.
        trails_m: (n, T, 2 or 3) float64, places in the frame of the boxes, as in `Tracks`.
    """

    ids: NDArray[np.int64]
    ages_s: FloatArray
    trails_m: FloatArray

    @staticmethod
    def in_vehicle(objects: Objects) -> TrackMarks | None:
        """Those of objects, with trails in the frame of the vehicle as it stands in their moment.

        Returns:
            None where no tracker was at work.
        """
        trails = ground_trails(objects)  # (n, T, 3)
        if trails is None:
            return None
        pose = objects.vehicle_to_world
        from_vehicle = (trails - pose.translation_m).reshape(-1, 3)
        there = pose.rotation().inv().apply(from_vehicle).reshape(trails.shape)
        return TrackMarks(objects.ids, objects.ages_s, there)

    def has_id(self, index: int) -> bool:
        """Whether a box has one."""
        return bool(self.ids[index] != NO_ID)

    def color(self, index: int, otherwise: Color) -> Color:
        """Colour of a box by its id."""
        return id_color(int(self.ids[index])) if self.has_id(index) else otherwise

    def text(self, index: int) -> str:
        """Id and age of a box that has an id."""
        return track_text(int(self.ids[index]), float(self.ages_s[index]))


def track_text(track_id: int, age_s: float) -> str:
    """Id and age in a few characters: "#17 3.5 s", "#17 12 s"."""
    return f"#{track_id} {age_s:.{1 if age_s < _SHORT_S else 0}f} s"


def ground_trails(objects: Objects) -> FloatArray | None:
    """The trails of objects (n, T, 3) in the world frame, at the height of each box's floor now.

    None where no tracker was at work.
    """
    if objects.tracks is None:
        return None
    there = objects.to("world")
    trails = objects.tracks.trails_m  # (n, T, 2)
    floors = there.centers[:, 2] - there.sizes[:, 2] / 2
    heights = np.broadcast_to(floors[:, None, None], (*trails.shape[:2], 1))
    return np.concatenate((trails, heights), axis=2)
