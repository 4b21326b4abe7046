"""Tells the classic mistakes of a drive's poses.

A car moves along its x axis, forward most of the time, at a speed that cars have. A drive that does
not is tried with the usual mistakes undone. n is the number of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.errors import InputError
from streampetr_vit.inference.checks.times import can_give_speeds, mistakes_of_times
from streampetr_vit.inference.checks.trajectory import Trajectory
from streampetr_vit.inference.continuity import FASTEST_MPS
from streampetr_vit.structures import Pose
from streampetr_vit.structures.rigid import as_pose

FloatArray = NDArray[np.float64]

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
        InputError: a pose is none, which names the number of its frame; or there are more or fewer
            times than poses.
    """
    if len(timestamps_s) != len(vehicle_to_world):
        raise InputError(
            f"{len(timestamps_s)} times and {len(vehicle_to_world)} poses: give one of each for "
            "every frame"
        )
    poses = [as_pose(p, f"vehicle_to_world of frame {n}") for n, p in enumerate(vehicle_to_world)]
    times = np.array(timestamps_s, dtype=np.float64)
    found = mistakes_of_times(times)
    if len(poses) < 3 or not can_give_speeds(times):
        return found
    drive = Trajectory.of(times, np.stack([pose.matrix() for pose in poses]))
    return found + (_upward(drive) or _directions(drive) or _units(drive) or _rest(drive))


# What may be wrong -> the drive without it.
_CAUSES: tuple[tuple[str, Callable[[Trajectory], Trajectory]], ...] = (
    ("the poses look like world_to_vehicle: give their inverses", Trajectory.inverse),
    (f"{_AXES} x right, y forward: {_TURN}", lambda d: d.with_yaws(d.yaws + np.pi / 2)),
    (f"{_AXES} x left, y backward: {_TURN}", lambda d: d.with_yaws(d.yaws - np.pi / 2)),
    (f"{_AXES} x backward, y right: {_TURN}", lambda d: d.with_yaws(d.yaws + np.pi)),
    (
        "the yaws look like degrees that were turned into radians twice: multiply them by 180 / pi",
        lambda d: d.with_yaws(np.degrees(d.yaws)),
    ),
    ("the yaws look like degrees: multiply them by pi / 180", Trajectory.in_degrees),
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


def _upward(drive: Trajectory) -> list[str]:
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


def _directions(drive: Trajectory) -> list[str]:
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
    fix = "; or ".join(causes) or f"give poses of a vehicle with {_WHERE}, and yaws in radians"
    return [f"all frames: {seen}; {fix}"]


def _forward(drive: Trajectory) -> float:
    """How far the way agrees with the x axis, 1 at best; 0 where most of it is backward."""
    angles, lengths, _ = drive.ways()
    if not len(angles) or np.median(drive.speeds()) > FASTEST_MPS:
        return 0.0
    cosines = np.cos(angles) * lengths
    return float(np.abs(cosines).sum() / lengths.sum()) if cosines.sum() > 0 else 0.0


def _units(drive: Trajectory) -> list[str]:
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


def _rest(drive: Trajectory) -> list[str]:
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
