"""How a vehicle moves, relative to its own axes.

n is the number of frames, m of those in which the vehicle moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.inference.continuity import FASTEST_MPS

FloatArray = NDArray[np.float64]

_CHORD_S = 0.5  # noise of positions is small against the way of that time
_MOVING_M, _MOVING_MPS = 0.3, 0.5  # less, and no direction can be told


@dataclass(frozen=True)
class Trajectory:
    """Poses of a vehicle in the world, `vehicle_to_world`.

    Attributes:
        times: (n,) seconds, ascending.
        places: (n, 3) metres.
        turns: (n, 3, 3) rotation matrices.
        yaws: (n,) radians, of the x axis; `with_yaws` changes them alone.
    """

    times: FloatArray
    places: FloatArray
    turns: FloatArray
    yaws: FloatArray

    @staticmethod
    def of(times: FloatArray, matrices: FloatArray) -> Trajectory:
        """From times (n,) and poses (n, 4, 4)."""
        turns = matrices[:, :3, :3]
        return Trajectory(
            times, matrices[:, :3, 3], turns, np.arctan2(turns[:, 1, 0], turns[:, 0, 0])
        )

    def chords(self) -> tuple[FloatArray, FloatArray]:
        """From the place about 0.25 s before each frame to that 0.25 s after it.

        Returns:
            (n, 2) metres in the plane of the world, and (n,) seconds between both places.
        """
        # The heading in the middle of a chord is the chord's own, in curves too.
        reach = max(1, round(_CHORD_S / 2 / float(np.median(np.diff(self.times)))))
        number = np.arange(len(self.times))
        reach = np.minimum(reach, np.minimum(number, number[::-1]))  # (n,) 0 at both ends
        ends, starts = number + reach, number - reach
        chords = self.places[ends, :2] - self.places[starts, :2]
        return chords, self.times[ends] - self.times[starts]

    def ways(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Where the vehicle goes in the m frames in which it moves.

        Returns:
            Directions (m,) of motion relative to the x axis, -pi to pi, counter-clockwise; lengths
            (m,) of the way up to the next frame, metres; curvatures (m,), radians per metre.
        """
        chords, seconds = self.chords()
        length = np.hypot(chords[:, 0], chords[:, 1])
        speed = length / np.maximum(seconds, 1e-9)
        moves = (length > _MOVING_M) & (speed > _MOVING_MPS) & (speed < FASTEST_MPS)
        direction = np.arctan2(chords[:, 1], chords[:, 0]) - self.yaws
        turn = np.abs(np.gradient(np.unwrap(self.yaws), self.times))
        part = speed * float(np.median(np.diff(self.times)))
        return _wrapped(direction)[moves], part[moves], turn[moves] / speed[moves]

    def steps(self) -> FloatArray:
        """Lengths of the ways from frame to frame, (n - 1,) metres."""
        return np.linalg.norm(np.diff(self.places, axis=0), axis=1)

    def speeds(self) -> FloatArray:
        """From frame to frame, (n - 1,) metres per second."""
        return self.steps() / np.diff(self.times)

    def with_yaws(self, yaws: FloatArray) -> Trajectory:
        """With other yaws (n,)."""
        return replace(self, yaws=yaws)

    def inverse(self) -> Trajectory:
        """With the inverse poses."""
        turns = self.turns.transpose(0, 2, 1)
        places = -(turns @ self.places[:, :, None])[:, :, 0]
        return replace(
            self, places=places, turns=turns, yaws=np.arctan2(turns[:, 1, 0], turns[:, 0, 0])
        )

    def in_degrees(self) -> Trajectory:
        """With yaws along the way, if the given ones are degrees that were taken for radians."""
        # Full turns are lost, so a yaw in radians cannot be computed from what was given.
        chords, _ = self.chords()
        way = np.arctan2(chords[:, 1], chords[:, 0])
        if np.ptp(np.unwrap(way)) < 0.1:  # on a straight way all would agree by chance
            return self
        # Yaws are counted from -180 or from 0 degrees. A constant offset is 57 times as large.
        offsets = [self.yaws - np.degrees(angle) for angle in (way, way % (2 * np.pi))]
        sums = [(np.hypot(*chords.T) * np.exp(1j * offset)).sum() for offset in offsets]
        best = int(np.abs(sums).argmax())
        close = np.cos(offsets[best] - np.angle(sums[best])) > 0
        return self.with_yaws(np.where(close, way, way + np.pi / 2))


def _wrapped(angles: FloatArray) -> FloatArray:
    return (angles + np.pi) % (2 * np.pi) - np.pi
