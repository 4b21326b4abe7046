"""Each mistake of times and poses is made from a right drive, and found alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hand_made_drive import drive, matrices

from streampetr_vit.errors import InputError
from streampetr_vit.inference.checks.poses import mistakes_of_poses
from streampetr_vit.structures import Pose

REAL = Path(__file__).resolve().parents[3] / "shared" / "real_nuscenes_tables" / "v1.0-mini"
TIMES, YAWS, PLACES = drive()
RIGHT = matrices(YAWS, PLACES)
AXES = {
    "x right, y forward": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    "x left, y backward": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    "x backward, y right": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "x forward, y right, z down": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "a camera's, x right, y down, z forward": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]],
}
FRAMES = {"2 Hz": (60, 0.5, 0.08), "20 Hz": (600, 0.05, 0.002)}


def with_axes(poses: np.ndarray, axes: str) -> np.ndarray:
    """Poses of a vehicle whose frame has other axes: columns of them in the right ones."""
    turn = np.eye(4)
    turn[:3, :3] = AXES[axes]
    return poses @ turn


def wrapped(yaws: np.ndarray) -> np.ndarray:
    return (yaws + np.pi) % (2 * np.pi) - np.pi


def found(times: np.ndarray, poses: np.ndarray) -> list[str]:
    return mistakes_of_poses(times.tolist(), list(poses))


@pytest.mark.parametrize("rate", FRAMES)
@pytest.mark.parametrize("yaw", [0.0, 1.6, -2.5])
def test_a_right_drive_has_none(rate: str, yaw: float) -> None:
    times, yaws, places = drive(*FRAMES[rate], yaw)
    assert not found(times, matrices(yaws, places))
    assert not mistakes_of_poses(
        times.tolist(), [Pose.of_matrix(pose) for pose in matrices(yaws, places)]
    )


def test_cars_that_stand_reverse_or_drive_straight_have_none() -> None:
    rng = np.random.default_rng(0)
    still = np.repeat(RIGHT[:1], len(RIGHT), axis=0)
    assert not found(TIMES, still)
    still[:, :2, 3] += rng.normal(0, 0.02, (len(still), 2))
    assert not found(TIMES, still)
    speeds = np.r_[np.full(20, 6.0), np.full(15, -2.0), np.full(24, 6.0)]
    assert not found(TIMES, matrices(*drive(speeds_mps=speeds)[1:]))
    parking = np.r_[np.full(4, 2.0), np.full(55, -0.6)]
    assert not found(TIMES, matrices(*drive(speeds_mps=parking)[1:]))
    assert not found(TIMES, matrices(*drive(turn=0.0)[1:]))


def test_hills_slip_and_noise_are_no_mistakes() -> None:
    rng = np.random.default_rng(0)
    noisy = matrices(YAWS + 0.05 + rng.normal(0, 0.02, len(YAWS)), PLACES)
    noisy[:, :3, 3] += rng.normal(0, 0.1, (len(YAWS), 3))
    slope = np.eye(4)
    slope[:3, :3] = [[np.cos(0.2), 0, np.sin(0.2)], [0, 1, 0], [-np.sin(0.2), 0, np.cos(0.2)]]
    assert not found(TIMES, noisy @ slope)
    # Noise is large against the way from frame to frame, and small against that of half a second.
    times, yaws, places = drive(*FRAMES["20 Hz"])
    fast = matrices(yaws, places + rng.normal(0, 0.35, places.shape))
    assert not found(times, fast)


def test_a_few_frames_are_not_judged() -> None:
    for count in range(3):
        assert not found(TIMES[:count], with_axes(RIGHT, "x right, y forward")[:count])


MISTAKES: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "inverse": (lambda: np.linalg.inv(RIGHT), "look like world_to_vehicle: give their inverses"),
    "twice": (
        lambda: matrices(np.radians(wrapped(YAWS)), PLACES),
        r"turned into radians twice: multiply them by 180 / pi",
    ),
    "degrees": (
        lambda: matrices(np.degrees(wrapped(YAWS)), PLACES),
        "the yaws look like degrees: multiply them by pi / 180",
    ),
    "degrees from 0": (
        lambda: matrices(np.degrees(YAWS % (2 * np.pi)), PLACES),
        "the yaws look like degrees: multiply them by pi / 180",
    ),
    "degrees from 0, most above 180": (
        lambda: matrices(np.degrees(drive(yaw=-1.0)[1] % (2 * np.pi)), drive(yaw=-1.0)[2]),
        "the yaws look like degrees: multiply them by pi / 180",
    ),
    "compass": (lambda: matrices(np.pi / 2 - YAWS, PLACES), "clockwise from north: give pi / 2"),
    "north first": (lambda: matrices(YAWS, PLACES[:, ::-1]), "x to the east and y to the north"),
    "clockwise": (lambda: matrices(-YAWS, PLACES), "the yaws look clockwise: give -yaw"),
    "sensor": (lambda: matrices(YAWS + 0.35, PLACES), "moves -20 degrees .* not of a sensor"),
    "unknown": (lambda: matrices(YAWS + 1.05, PLACES), "moves 60 degrees from its x axis; give"),
    "backward sensor": (
        lambda: matrices(YAWS + np.pi + 0.35, PLACES),
        "moves 160 degrees .*; give",
    ),
    "millimetres": (
        lambda: matrices(YAWS, 1000 * PLACES),
        r"speed is 8000 m/s: .* \(not millimetres\)",
    ),
    "kilometres": (lambda: matrices(YAWS, PLACES / 1000), r"on a way of 0.24 m: .*not kilometres"),
    **{
        axes: (
            lambda axes=axes: with_axes(RIGHT, axes),  # type: ignore[misc]
            f"axes look like {axes}",
        )
        for axes in AXES
    },
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_all_poses_is_found_alone(mistake: str) -> None:
    make, message = MISTAKES[mistake]
    (line,) = found(TIMES, make())
    assert line.startswith("all frames: ") and "; or " not in line
    assert re.search(message, line), line


def test_a_mistake_is_found_in_a_drive_that_reverses_for_a_while() -> None:
    speeds = np.r_[np.full(20, 6.0), np.full(15, -2.0), np.full(24, 6.0)]
    times, yaws, places = drive(speeds_mps=speeds)
    right = matrices(yaws, places)
    for wrong, message in (
        (np.linalg.inv(right), "world_to_vehicle"),
        (with_axes(right, "x right, y forward"), "x right, y forward"),
        (matrices(-yaws, places), "the yaws look clockwise"),
    ):
        (line,) = found(times, wrong)
        assert message in line and "; or " not in line


def test_an_origin_ahead_of_the_axle_is_no_mistake() -> None:
    yaws, curve = 0.35 * np.arange(20), np.zeros((20, 2))  # two turns of 11 m
    middle = (yaws[1:] + yaws[:-1]) / 2
    curve[1:] = 4.0 * np.stack((np.cos(middle), np.sin(middle)), axis=1).cumsum(axis=0)
    straight = np.concatenate((np.linspace([-24.0, 0], [-4, 0], 6), curve))
    for headings, places in ((YAWS, PLACES), (np.r_[np.zeros(6), yaws], straight)):
        ahead = places + 2.7 * np.stack((np.cos(headings), np.sin(headings)), axis=1)
        assert not found(TIMES[: len(ahead)], matrices(headings, ahead))


def test_where_two_mistakes_look_alike_both_are_named() -> None:
    poses = matrices(*drive(turn=0.0, yaw=np.pi / 2)[1:])
    (line,) = found(TIMES, np.linalg.inv(poses))
    assert "world_to_vehicle" in line and "; or the vehicle's axes look like x left" in line


def test_one_wrong_pose_is_found() -> None:
    poses = RIGHT.copy()
    poses[30, 0, 3] += 300
    (line,) = found(TIMES, poses)
    assert line.startswith("frame 30: it is 30") and "(2 such steps): check its pose" in line


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1e3, "500 seconds apart, which look like milliseconds: divide the times by 1e3"),
        (1e2, "50 seconds apart, which look like milliseconds"),  # as of 20 Hz
        (1e6, "look like microseconds: divide the times by 1e6"),
        (1e9, "look like nanoseconds"),
        (1e-4, "5e-05 seconds apart: give times in seconds"),
    ],
)
def test_times_in_other_units_are_found_alone(factor: float, message: str) -> None:
    (line,) = found(TIMES * factor, RIGHT)
    assert line.startswith("all frames: ") and message in line


def test_times_out_of_order_twice_or_missing_are_found_alone() -> None:
    swapped, doubled, gap, unknown = (TIMES.copy() for _ in range(4))
    swapped[[20, 21]] = swapped[[21, 20]]
    doubled[20] = doubled[19]
    gap[30:] += 7
    unknown[3] = np.nan
    for times, message in (
        (swapped, "frame 21: its time 10.000000 is earlier than that of the frame before"),
        (doubled, "frame 20: its time 9.500000 is the same as that of the frame before"),
        (gap, "frame 30: it is 7.5 s after the frame before: the memory starts anew"),
        (unknown, "frame 3: its time is nan"),
    ):
        (line,) = found(times, RIGHT)
        assert line.startswith(message)


@pytest.mark.parametrize(("step_s", "gap_s"), [(0.05, 1.5), (1.0, 2.5)])
def test_a_few_frames_that_are_missing_are_no_gap(step_s: float, gap_s: float) -> None:
    times, yaws, places = drive(40, step_s, 0.002, speeds_mps=4.0)
    times[20:] += gap_s - step_s
    assert not found(times, matrices(yaws, places))


def test_no_pose_is_refused_with_its_frame() -> None:
    poses = RIGHT.copy()
    poses[7, :3, :3] *= 2
    with pytest.raises(InputError, match="vehicle_to_world of frame 7 has the upper left"):
        found(TIMES, poses)
    with pytest.raises(InputError, match="59 times and 60 poses"):
        found(TIMES[:-1], RIGHT)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no tables of nuScenes in {REAL}")
def test_real_drives_have_none_and_their_mistakes_are_found() -> None:
    drives = [d for d in _real_drives() if len(d[0]) > 3]
    assert len(drives) >= 2
    for times, poses in drives:
        assert not found(times, poses)
        yaws, places = np.arctan2(poses[:, 1, 0], poses[:, 0, 0]), poses[:, :2, 3]
        for wrong, message in (
            (np.linalg.inv(poses), "world_to_vehicle"),
            (with_axes(poses, "x right, y forward"), "x right, y forward"),
            (matrices(np.degrees(yaws), places), "look like degrees"),
            (matrices(np.radians(yaws), places), "radians twice"),
            (matrices(-yaws, places), "clockwise: give -yaw"),
            (matrices(np.pi / 2 - yaws, places), "clockwise from north"),
        ):
            (line,) = found(times, wrong)
            assert message in line


def _real_drives() -> list[tuple[np.ndarray, np.ndarray]]:
    def rows(name: str) -> dict[str, dict]:
        return {row["token"]: row for row in json.loads((REAL / f"{name}.json").read_text())}

    poses, samples = rows("ego_pose"), rows("sample")
    drives: dict[str, list[dict]] = {}
    for row in rows("sample_data").values():
        if "LIDAR_TOP" in row["filename"]:
            scene = samples[row["sample_token"]]["scene_token"]
            drives.setdefault(scene, []).append(poses[row["ego_pose_token"]])
    found = []
    for drive_rows in drives.values():
        drive_rows.sort(key=lambda row: row["timestamp"])
        pose_rows = [Pose.of_row([*row["translation"], *row["rotation"]]) for row in drive_rows]
        times = np.array([row["timestamp"] / 1e6 for row in drive_rows])
        found.append((times, np.stack([pose.matrix() for pose in pose_rows])))
    return found
