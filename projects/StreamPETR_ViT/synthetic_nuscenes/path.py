"""The road: an arc of constant curvature, and (s, d) coordinates along it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RoadPath:
    """The ego car's path; every lane is a parallel of it.

    Attributes:
        curvature_per_m: positive turns left; 0 is straight.
        start_xy_m: (x, y) of s = 0, global.
        start_yaw_rad: heading at s = 0.
    """

    curvature_per_m: float
    start_xy_m: tuple[float, float]
    start_yaw_rad: float

    def heading(self, s_m: np.ndarray | float) -> np.ndarray:
        """Heading of the road at arc length `s_m`, radians, global."""
        return self.start_yaw_rad + self.curvature_per_m * np.asarray(s_m, dtype=float)

    def position(self, s_m: np.ndarray | float, d_m: np.ndarray | float = 0.0) -> np.ndarray:
        """Global (..., 2) positions at arc length s and lateral offset d (positive is left)."""
        s, d = np.broadcast_arrays(np.asarray(s_m, dtype=float), np.asarray(d_m, dtype=float))
        k = self.curvature_per_m
        angle = k * s
        # sin(a)/a and (1-cos(a))/a by sinc, which is exact at k = 0 as well.
        forward = s * np.sinc(angle / math.pi)
        left = s * np.sin(angle / 2) * np.sinc(angle / (2 * math.pi))
        # Then sideways, along the normal of the road at s.
        forward = forward - d * np.sin(angle)
        left = left + d * np.cos(angle)
        # From the frame of the road's start to the global frame.
        cos, sin = math.cos(self.start_yaw_rad), math.sin(self.start_yaw_rad)
        x = self.start_xy_m[0] + cos * forward - sin * left
        y = self.start_xy_m[1] + sin * forward + cos * left
        return np.stack((x, y), axis=-1)

    def arc_rate(self, speed_mps: float, d_m: float) -> float:
        """ds/dt of something that moves with `speed_mps` on the parallel at offset d."""
        # A parallel on the inner side of the arc is shorter.
        return speed_mps / (1.0 - self.curvature_per_m * d_m)
