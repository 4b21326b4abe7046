"""A spinning lidar that sees boxes and the ground: true occlusion, cheap, vectorised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BEAMS = 32
AZIMUTHS = 720
_ELEVATION_TAN = np.tan(np.radians(np.linspace(-30.0, 10.0, BEAMS)))
_AZIMUTH_STEP = 2 * np.pi / AZIMUTHS
# Shape letters: n boxes, p pairs of a box and an azimuth that may meet, A azimuths, E beams.


@dataclass(frozen=True)
class Sweep:
    """One revolution.

    Attributes:
        counts: (n,) int, returns on each box.
        points: (m, 5) float32 x, y, z, intensity, ring in the lidar frame.
    """

    counts: np.ndarray
    points: np.ndarray


def _azimuth_windows(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (box, azimuth column) that may meet: (p,), (p,) int."""
    distance = np.hypot(boxes[:, 0], boxes[:, 1])
    radius = 0.5 * np.hypot(boxes[:, 3], boxes[:, 4])
    # A lidar within the circle around the footprint may meet the box in every direction.
    half = np.where(distance > radius, np.arcsin(np.minimum(radius / distance, 1.0)), np.pi)
    middle = np.arctan2(boxes[:, 1], boxes[:, 0])
    first = np.ceil((middle - half) / _AZIMUTH_STEP).astype(int)
    last = np.floor((middle + half) / _AZIMUTH_STEP).astype(int)
    count = np.minimum(np.maximum(last - first + 1, 0), AZIMUTHS)
    owner = np.repeat(np.arange(len(boxes)), count)  # (n,) -> (p,)
    # 0, 1, 2, ... anew for each box.
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return owner, (np.repeat(first, count) + step) % AZIMUTHS


def _footprint_interval(
    boxes: np.ndarray, owner: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal distances at which each azimuth enters and leaves the box's footprint."""
    # The slab method in the box's own axes: the ray's direction (along, across), and the lidar's
    # position (x, y).
    yaw, angle = boxes[owner, 6], column * _AZIMUTH_STEP
    along, across = np.cos(angle - yaw), np.sin(angle - yaw)
    cos, sin = np.cos(yaw), np.sin(yaw)
    x = -(cos * boxes[owner, 0] + sin * boxes[owner, 1])
    y = -(-sin * boxes[owner, 0] + cos * boxes[owner, 1])
    # A ray parallel to a side divides by zero: infinities compare as they should.
    with np.errstate(divide="ignore", invalid="ignore"):
        a = (-boxes[owner, 3] / 2 - x) / along, (boxes[owner, 3] / 2 - x) / along
        b = (-boxes[owner, 4] / 2 - y) / across, (boxes[owner, 4] / 2 - y) / across
    enter = np.maximum(np.minimum(*a), np.minimum(*b))
    leave = np.minimum(np.maximum(*a), np.maximum(*b))
    return enter, leave


def _first_hits(boxes: np.ndarray, height_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Nearest box of every ray: horizontal distance and box index (-1), both (A, E)."""
    owner, column = _azimuth_windows(boxes)
    enter, leave = _footprint_interval(boxes, owner, column)
    meets = (leave > enter) & (leave > 0)
    owner, column, enter, leave = owner[meets], column[meets], enter[meets], leave[meets]
    # A beam is between the box's bottom and top on one stretch of its way: (p, E).
    bottom = (boxes[owner, 2] - boxes[owner, 5] / 2 - height_m)[:, None] / _ELEVATION_TAN
    top = (boxes[owner, 2] + boxes[owner, 5] / 2 - height_m)[:, None] / _ELEVATION_TAN
    start = np.maximum(np.maximum(enter[:, None], np.minimum(bottom, top)), 0.0)
    end = np.minimum(leave[:, None], np.maximum(bottom, top))
    hit, beam = np.nonzero(end > start)  # (hits,) each
    ray, reach = column[hit] * BEAMS + beam, start[hit, beam]
    nearest = np.full(AZIMUTHS * BEAMS, np.inf)
    np.minimum.at(nearest, ray, reach)  # several boxes may lie on one ray
    winner = np.full(AZIMUTHS * BEAMS, -1)
    wins = reach == nearest[ray]
    winner[ray[wins]] = owner[hit[wins]]
    # (A * E,) -> (A, E)
    return nearest.reshape(AZIMUTHS, BEAMS), winner.reshape(AZIMUTHS, BEAMS)


def scan(
    boxes_ego_m: np.ndarray,
    origin_ego_m: tuple[float, float, float],
    range_m: float,
    ego_to_lidar_yaw_rad: float,
    with_points: bool,
) -> Sweep:
    """Casts all rays once.

    Args:
        boxes_ego_m: (n, 7) x, y, z (centre), l, w, h, yaw in the ego frame.
        origin_ego_m: position of the lidar in the ego frame.
        range_m: rays end there, and boxes whose centre is farther have no returns.
        ego_to_lidar_yaw_rad: added to azimuths for the stored points.
        with_points: whether to compute the point cloud.
    """
    boxes = boxes_ego_m.copy()
    boxes[:, :2] -= np.asarray(origin_ego_m)[:2]
    distance, winner = _first_hits(boxes, origin_ego_m[2])
    # From horizontal distance to distance along the ray.
    slant = np.sqrt(1.0 + _ELEVATION_TAN**2)
    seen = (winner >= 0) & (distance * slant <= range_m)
    counts = np.bincount(winner[seen], minlength=len(boxes))
    # What a range-limited detector cannot report must not be annotated.
    counts[np.hypot(boxes[:, 0], boxes[:, 1]) > range_m] = 0
    points = np.zeros((0, 5), dtype=np.float32)
    if with_points:
        points = _points(distance, winner, seen, origin_ego_m[2], range_m, ego_to_lidar_yaw_rad)
    return Sweep(counts, points)


def _points(
    distance: np.ndarray,
    winner: np.ndarray,
    seen: np.ndarray,
    height_m: float,
    range_m: float,
    yaw_rad: float,
) -> np.ndarray:
    """(m, 5) point cloud of the box returns and of the ground."""
    with np.errstate(divide="ignore"):
        # Only beams that look down meet the ground.
        ground = np.where(_ELEVATION_TAN < 0, -height_m / _ELEVATION_TAN, np.inf)
    on_ground = (winner < 0) & (ground * np.sqrt(1 + _ELEVATION_TAN**2) <= range_m)
    reach = np.where(seen, distance, np.where(on_ground, ground, np.nan))
    column, ring = np.nonzero(seen | on_ground)
    r = reach[column, ring]
    angle = column * _AZIMUTH_STEP + yaw_rad
    intensity = np.where(winner[column, ring] >= 0, 60.0, 12.0)
    columns = (r * np.cos(angle), r * np.sin(angle), r * _ELEVATION_TAN[ring], intensity, ring)
    return np.stack(columns, axis=1).astype(np.float32)
