"""Tells the classic mistakes of a drive's poses.

A car moves along its x axis, forward most of the time, at a speed that cars have. A drive that does
not is tried with the usual mistakes undone. n is the number of frames, m of those that move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.inference.time_mistakes import can_give_speeds, mistakes_of_times
from streampetr_vit.structures import Pose
from streampetr_vit.structures.rigid import as_pose

FloatArray = NDArray[np.float64]

FASTEST_MPS = 100.0
_CHORD_S = 0.5  # noise of positions is small against the way of that time
_MOVING_M, _MOVING_MPS = 0.3, 0.5  # less, and no direction can be told
_STRAIGHT = 0.01  # radians per metre: there any place on the vehicle moves as its axle does
_LEAST_WAY_M = 5.0  # of a drive whose directions are looked at
_LONG_BACKWARD_M = 60.0  # nobody parks so far
_LONG_STRAIGHT_M = 30.0  # enough for an angle
_ALIGNED = np.cos(np.radians(30))  # between the way and the x axis, in curves with slip too
_EXPLAINED = 0.95  # mean cosine between them after the mistake is undone
_WHERE = "x forward, y left, z up"
_AXES = "the vehicle's axes look like"
_TURN = f"turn the poses to those of the rig, {_WHERE}"


def mistakes_of_poses(
    timestamps_s: Sequence[float], vehicle_to_world: Sequence[Pose | np.ndarray]
) -> list[str]:
    """What looks wrong with one drive, a line for each mistake with its frames, numbers and fix.

    Args:
        timestamps_s: n times.
        vehicle_to_world: n poses.

    Raises:
        InputError: a pose is none; names the number of its frame.
    """
    poses = [as_pose(p, f"vehicle_to_world of frame {n}") for n, p in enumerate(vehicle_to_world)]
    times = np.array(timestamps_s, dtype=np.float64)
    found = mistakes_of_times(times)
    if len(poses) < 3 or not can_give_speeds(times):
        return found
    drive = _Drive.of(times, np.stack([pose.matrix() for pose in poses]))
    return found + (_upward(drive) or _directions(drive) or _units(drive) or _rest(drive))


@dataclass(frozen=True)
class _Drive:
    times: FloatArray  # (n,) seconds
    places: FloatArray  # (n, 3) metres
    turns: FloatArray  # (n, 3, 3)
    yaws: FloatArray  # (n,) of the x axis

    @staticmethod
    def of(times: FloatArray, matrices: FloatArray) -> _Drive:
        turns = matrices[:, :3, :3]
        return _Drive(times, matrices[:, :3, 3], turns, np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))

    def chords(self) -> tuple[FloatArray, FloatArray]:
        """Ways (n, 2) from about 0.25 s before each frame to as long after it, and seconds (n,)."""
        # The heading in the middle of a chord is the chord's own, in curves too.
        reach = max(1, round(_CHORD_S / 2 / float(np.median(np.diff(self.times)))))
        number = np.arange(len(self.times))
        reach = np.minimum(reach, np.minimum(number, number[::-1]))  # (n,) 0 at both ends
        ends, starts = number + reach, number - reach
        return self.places[ends, :2] - self.places[starts, :2], self.times[ends] - self.times[
            starts
        ]

    def ways(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Of m frames that move: direction of the way relative to the x axis, -pi to pi, length of
        the way to the next frame, and curvature in radians per metre."""
        chords, seconds = self.chords()
        length = np.hypot(chords[:, 0], chords[:, 1])
        speed = length / np.maximum(seconds, 1e-9)
        moves = (length > _MOVING_M) & (speed > _MOVING_MPS) & (speed < FASTEST_MPS)
        direction = np.arctan2(chords[:, 1], chords[:, 0]) - self.yaws
        turn = np.abs(np.gradient(np.unwrap(self.yaws), self.times))
        part = speed * float(np.median(np.diff(self.times)))
        return _wrapped(direction)[moves], part[moves], (turn[moves] / speed[moves])

    def steps(self) -> FloatArray:
        """Lengths of the ways from frame to frame, (n - 1,) metres."""
        return np.linalg.norm(np.diff(self.places, axis=0), axis=1)

    def speeds(self) -> FloatArray:
        """From frame to frame, (n - 1,) metres per second."""
        return self.steps() / np.diff(self.times)

    def with_yaws(self, yaws: FloatArray) -> _Drive:
        return replace(self, yaws=yaws)

    def inverse(self) -> _Drive:
        turns = self.turns.transpose(0, 2, 1)
        places = -(turns @ self.places[:, :, None])[:, :, 0]
        return replace(
            self, places=places, turns=turns, yaws=np.arctan2(turns[:, 1, 0], turns[:, 0, 0])
        )

    def in_degrees(self) -> _Drive:
        """With the yaws of the way, where those in degrees, as radians, are what was given."""
        # A yaw in degrees is lost behind full turns: it is made of the way.
        chords, _ = self.chords()
        way = np.arctan2(chords[:, 1], chords[:, 0])
        if np.ptp(np.unwrap(way)) < 0.1:  # on a straight way all would agree by chance
            return self
        # Yaws are counted from -180 or from 0 degrees. A constant error is 57 times as large.
        rests = [self.yaws - np.degrees(angle) for angle in (way, way % (2 * np.pi))]
        sums = [(np.hypot(*chords.T) * np.exp(1j * rest)).sum() for rest in rests]
        best = int(np.abs(sums).argmax())
        close = np.cos(rests[best] - np.angle(sums[best])) > 0
        return self.with_yaws(np.where(close, way, way + np.pi / 2))


# What may be wrong -> the drive without it.
_CAUSES: tuple[tuple[str, Callable[[_Drive], _Drive]], ...] = (
    ("the poses look like world_to_vehicle: give their inverses", _Drive.inverse),
    (f"{_AXES} x right, y forward: {_TURN}", lambda d: d.with_yaws(d.yaws + np.pi / 2)),
    (f"{_AXES} x left, y backward: {_TURN}", lambda d: d.with_yaws(d.yaws - np.pi / 2)),
    (f"{_AXES} x backward, y right: {_TURN}", lambda d: d.with_yaws(d.yaws + np.pi)),
    (
        "the yaws look like degrees that were turned into radians twice: multiply them by 180 / pi",
        lambda d: d.with_yaws(np.degrees(d.yaws)),
    ),
    ("the yaws look like degrees: multiply them by pi / 180", _Drive.in_degrees),
    (
        "the yaws look like a compass's, clockwise from north: give pi / 2 - yaw, in a world with "
        "x to the east and y to the north",
        lambda d: d.with_yaws(np.pi / 2 - d.yaws),
    ),
    (
        "the yaws look clockwise: give -yaw, counter-clockwise from x seen from above",
        lambda d: d.with_yaws(-d.yaws),
    ),
)


def _upward(drive: _Drive) -> list[str]:
    """Vehicles whose z axis does not point up."""
    up = np.median(drive.turns[:, 2], axis=0)  # (3,): how far each axis of the vehicle points up
    if up[2] > 0.5:
        return []
    axes = "another frame's"
    if up[2] < -0.5:
        axes = "x forward, y right, z down"
    elif up[1] < -0.5:
        axes = "a camera's, x right, y down, z forward"
    return [
        f"all frames: the vehicle's z axis points {up[2]:.2f} up in the world, not 1; the axes "
        f"look like {axes}: give poses of a vehicle with {_WHERE}, in a world with z up"
    ]


def _directions(drive: _Drive) -> list[str]:
    """Vehicles that do not move along their x axis, or go backward all the time."""
    angles, lengths, _ = drive.ways()
    way = float(lengths.sum())
    told = len(angles) >= 3 and way > _LEAST_WAY_M
    aligned = told and lengths[np.abs(np.cos(angles)) > _ALIGNED].sum() > 0.8 * way
    backward = float(lengths[np.cos(angles) < 0].sum())
    jumps = bool((drive.speeds() > FASTEST_MPS).any())  # as of an inverse, far from the origin
    right = not told or (aligned and backward < max(way / 4, _LONG_BACKWARD_M))
    if right and not jumps:
        return []
    scores = {cause: _forward(undo(drive)) for cause, undo in _CAUSES}
    causes = [c for c, s in scores.items() if s > max(_EXPLAINED, max(scores.values()) - 0.01)]
    # Somebody may drive backward for a while. Jumps are told of by themselves.
    if not causes and (right or (aligned and backward < 0.9 * way)):
        return []
    off = np.degrees((np.abs(angles) * lengths).sum() / max(way, 1e-9))
    seen = f"on a way of {way:.0f} m the vehicle moves {off:.0f} degrees from its x axis"
    if jumps:
        seen = f"the vehicle moves at up to {drive.speeds().max():.4g} m/s"
    fix = "; or ".join(causes) or f"give poses of a vehicle with {_WHERE}"
    return [f"all frames: {seen}; {fix}"]


def _forward(drive: _Drive) -> float:
    """How far the way agrees with the x axis: the mean cosine, 1 at best."""
    angles, lengths, _ = drive.ways()
    if not len(angles) or np.median(drive.speeds()) > FASTEST_MPS:
        return 0.0
    return float((np.cos(angles) * lengths).sum() / lengths.sum())


def _units(drive: _Drive) -> list[str]:
    """Positions that are not in metres."""
    speed, way = float(np.median(drive.speeds())), float(drive.steps().sum())
    if speed > FASTEST_MPS:
        return [
            f"all frames: the median speed is {speed:.4g} m/s: give positions in metres (not "
            "millimetres) and times in seconds"
        ]
    turned = float(np.ptp(np.unwrap(drive.yaws)))
    if turned > np.pi / 4 and 0 < way < 0.5:
        return [
            f"all frames: the vehicle turns by {np.degrees(turned):.0f} degrees on a way of "
            f"{way:.2g} m: give positions in metres (not kilometres, nor degrees of longitude)"
        ]
    return []


def _rest(drive: _Drive) -> list[str]:
    """Jumps, and a constant angle between the way and the x axis."""
    lines, steps, speeds = [], drive.steps(), drive.speeds()
    wrong = np.flatnonzero(speeds > FASTEST_MPS)
    if len(wrong):
        frame, more = wrong[0] + 1, f" ({len(wrong)} such steps)" if len(wrong) > 1 else ""
        lines.append(
            f"frame {frame}: it is {steps[frame - 1]:.4g} m from the frame before, "
            f"{speeds[frame - 1]:.4g} m/s{more}: check its pose, or start a new scene there"
        )
    angles, lengths, curvatures = drive.ways()
    straight = curvatures < _STRAIGHT
    angles, lengths = angles[straight], lengths[straight]
    off = float(np.degrees(np.median(angles))) if len(angles) else 0.0
    spread = float(np.median(np.abs(np.degrees(angles) - off))) if len(angles) else 0.0
    if 10 < abs(off) < 90 and spread < abs(off) / 3 and lengths.sum() > _LONG_STRAIGHT_M:
        lines.append(
            f"all frames: the vehicle moves {off:.0f} degrees (counter-clockwise) from its x axis: "
            "give poses of the vehicle, not of a sensor that looks elsewhere"
        )
    return lines


def _wrapped(angles: FloatArray) -> FloatArray:
    return (angles + np.pi) % (2 * np.pi) - np.pi
