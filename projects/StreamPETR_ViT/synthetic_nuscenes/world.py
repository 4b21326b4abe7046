"""What stands and moves in a scene, as values: positions, boxes and speeds at any time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthetic_nuscenes.path import RoadPath


@dataclass(frozen=True)
class Actors:
    """All objects of a scene, one row each.

    Attributes:
        kind: (n,) index into `categories.KIND_NAMES`.
        category: n category names.
        size_lwh_m: (n, 3).
        s0_m: (n,) arc length at time 0.
        d_m: (n,) lateral offset.
        rate_mps: (n,) signed ds/dt.
        heading_offset_rad: (n,) yaw minus the road's heading.
        look: (n,) index of the colour variant.
        rack: (n,) row of the bicycle rack that holds the object, or -1.
    """

    kind: np.ndarray
    category: tuple[str, ...]
    size_lwh_m: np.ndarray
    s0_m: np.ndarray
    d_m: np.ndarray
    rate_mps: np.ndarray
    heading_offset_rad: np.ndarray
    look: np.ndarray
    rack: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class World:
    """A scene without pictures.

    Attributes:
        path: the road; the ego car drives along d = 0.
        ego_speed_mps: constant.
        duration_s: time of the last keyframe.
        actors: everything else.
        sun_azimuth_rad: direction towards the sun.
    """

    path: RoadPath
    ego_speed_mps: float
    duration_s: float
    actors: Actors
    sun_azimuth_rad: float

    def ego_pose(self, time_s: float) -> tuple[np.ndarray, float]:
        """Global (2,) position and heading of the ego frame."""
        s = self.ego_speed_mps * time_s
        return self.path.position(s), float(self.path.heading(s))

    def boxes(self, time_s: float) -> np.ndarray:
        """(n, 7) boxes x, y, z (centre), l, w, h, yaw of all actors, global frame."""
        a = self.actors
        s = a.s0_m + a.rate_mps * time_s
        xy = self.path.position(s, a.d_m)
        yaw = self.path.heading(s) + a.heading_offset_rad
        yaw = np.arctan2(np.sin(yaw), np.cos(yaw))
        # All stand on the ground, z = 0.
        z = 0.5 * a.size_lwh_m[:, 2:3]
        # (n, 2), (n, 1), (n, 3), (n, 1) -> (n, 7)
        return np.concatenate((xy, z, a.size_lwh_m, yaw[:, None]), axis=1)

    def speeds(self) -> np.ndarray:
        """(n,) speed of every actor, m/s."""
        return np.abs(self._signed_speeds())

    def velocities(self, time_s: float) -> np.ndarray:
        """(n, 2) exact global velocities, m/s."""
        a = self.actors
        direction = self.path.heading(a.s0_m + a.rate_mps * time_s)
        forward = np.stack((np.cos(direction), np.sin(direction)), axis=1)
        return forward * self._signed_speeds()[:, None]

    def _signed_speeds(self) -> np.ndarray:
        """(n,) speeds along the road, negative against it; inverse of `RoadPath.arc_rate`."""
        a = self.actors
        return a.rate_mps * (1.0 - self.path.curvature_per_m * a.d_m)
