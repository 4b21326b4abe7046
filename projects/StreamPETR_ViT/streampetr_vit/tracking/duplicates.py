"""Several boxes of one object, and which of them stands for all.

n is the number of boxes, k that of pairs of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.tracking.matching import distances_m

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

# Source: the specification's lineage tracker. Cars, and classes that nuScenes does not know, have
# the default.
NEAR_M = {
    "pedestrian": 0.5,
    "bicycle": 0.5,
    "motorcycle": 0.5,
    "truck": 2.0,
    "bus": 2.0,
    "trailer": 2.0,
}
DEFAULT_NEAR_M = 1.0
# A camera sees well in which direction an object is, and badly how far away.
SAME_RAY_RAD = math.radians(0.5)


@dataclass(frozen=True)
class Footprints:
    """Boxes as seen from above, the best first.

    Attributes:
        centers_m: (n, 2) float64.
        sizes_m: (n, 2) float64, length and width.
        yaws_rad: (n,) float64.
        kinds: (n,) int64; only boxes of the same kind can be of one object.
        near_m: (n,) float64, the same for boxes of the same kind: nearer ones are of one object.
    """

    centers_m: FloatArray
    sizes_m: FloatArray
    yaws_rad: FloatArray
    kinds: IntArray
    near_m: FloatArray


def representatives(boxes: Footprints, viewpoint_m: FloatArray) -> IntArray:
    """(n,) int64, for each box the one that stands for its object, which may be itself.

    The best box takes all boxes near it, then the best of what is left, and so on. What a taken box
    is near to does not matter: a row of parked cars must not become one.

    Args:
        boxes: the best first.
        viewpoint_m: (2,) float64, where the vehicle is. Boxes that overlap count as one also where
            the vehicle sees them in the same direction.
    """
    taken_by = list(range(len(boxes.kinds)))
    one, other = _same_object(boxes, viewpoint_m)
    for better, worse in zip(one.tolist(), other.tolist(), strict=True):
        if taken_by[better] == better and taken_by[worse] == worse:
            taken_by[worse] = better
    return np.array(taken_by, dtype=np.int64)


def yaws_of(rotation_wxyz: FloatArray) -> FloatArray:
    """(n,) float64, direction of the front as seen from above, of (n, 4) unit quaternions."""
    w, x, y, z = rotation_wxyz.T
    return np.arctan2(2 * (w * z + x * y), w**2 + x**2 - y**2 - z**2)


def _same_object(boxes: Footprints, viewpoint_m: FloatArray) -> tuple[IntArray, IntArray]:
    """Pairs of boxes (k,), (k,), the better first, in the order of the better ones."""
    better, worse = _close_pairs(boxes, viewpoint_m)
    offset = boxes.centers_m[worse] - boxes.centers_m[better]
    near = np.hypot(*offset.T) < boxes.near_m[better]
    sight = boxes.centers_m - viewpoint_m
    azimuth = np.arctan2(sight[:, 1], sight[:, 0])
    turn = np.abs(azimuth[worse] - azimuth[better])
    same_ray = ~near & (np.minimum(turn, 2 * np.pi - turn) < SAME_RAY_RAD)
    maybe = np.flatnonzero(same_ray)
    same_ray[maybe] = _overlap(boxes, better[maybe], worse[maybe])
    same = near | same_ray
    return better[same], worse[same]


def _close_pairs(boxes: Footprints, viewpoint_m: FloatArray) -> tuple[IntArray, IntArray]:
    """Pairs of a kind that could be of one object, the better first, in the order of both."""
    # From the vehicle on, and with a centimetre to spare: the distances are float32.
    places_m = boxes.centers_m - viewpoint_m
    reach_m = np.maximum(boxes.near_m, np.hypot(*boxes.sizes_m.T)) / 2 + 0.005
    reach_m = reach_m.astype(np.float32)
    better, worse = [], []
    # Kind by kind: a table of all pairs takes most of its time to get memory.
    for kind in np.unique(boxes.kinds):
        rows = np.flatnonzero(boxes.kinds == kind)
        places, reach = places_m[rows], reach_m[rows]
        close = distances_m(places, places) < reach[:, None] + reach
        first, second = np.nonzero(np.triu(close, 1))
        better.append(rows[first])
        worse.append(rows[second])
    if not better:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing
    one, other = np.concatenate(better), np.concatenate(worse)
    order = np.lexsort((other, one))
    return one[order], other[order]


def _overlap(boxes: Footprints, first: IntArray, second: IntArray) -> BoolArray:
    """(k,) bool, whether the rectangles of pairs overlap: no side of one keeps the other apart."""
    turn = boxes.yaws_rad[second] - boxes.yaws_rad[first]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    offset = boxes.centers_m[second] - boxes.centers_m[first]
    overlap = np.ones(len(first), dtype=np.bool_)
    for one, other in ((first, second), (second, first)):
        yaw = boxes.yaws_rad[one]
        along = np.abs(np.cos(yaw) * offset[:, 0] + np.sin(yaw) * offset[:, 1])
        across = np.abs(np.cos(yaw) * offset[:, 1] - np.sin(yaw) * offset[:, 0])
        (length, width), (other_length, other_width) = boxes.sizes_m[one].T, boxes.sizes_m[other].T
        overlap &= 2 * along <= length + other_length * cos + other_width * sin
        overlap &= 2 * across <= width + other_length * sin + other_width * cos
    return overlap
