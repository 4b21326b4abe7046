"""Each mistake of a calibration is made from a right rig, and found alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hand_made_rig import intrinsics, looking, six_cameras

from streampetr_vit.inference.checks.rig import mistakes_of_rig
from streampetr_vit.structures import Camera, Pose, Rig
from synthetic_nuscenes.rig import make_rig

REAL = Path(__file__).resolve().parents[3] / "shared" / "real_nuscenes" / "v1.0-mini"
INVERSE = "looks like vehicle_to_camera: give its inverse"
BODY = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
GL = np.diag([1.0, -1, -1, 1])
ON_SIDE = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
LIDAR = np.array([[0, 1, 0, 0.94], [-1, 0, 0, 0], [0, 0, 1, 1.84], [0, 0, 0, 1.0]])


def changed(change: Callable[[np.ndarray], np.ndarray], *names: str, rig: Rig | None = None) -> Rig:
    """A rig with other camera_to_vehicle of some cameras, or of all."""
    rig = rig or six_cameras()
    return Rig(
        [
            replace(camera, camera_to_vehicle=change(camera.camera_to_vehicle.matrix()))
            if not names or camera.name in names
            else camera
            for camera in rig.cameras
        ],
        rig.reference_to_vehicle,
    )


@pytest.mark.parametrize("pitch_deg", [0, 10, -10])
def test_the_cameras_of_nuscenes_have_none(pitch_deg: float) -> None:
    rig = six_cameras(pitch_deg)
    assert not mistakes_of_rig(rig)
    assert not mistakes_of_rig(replace(rig, reference_to_vehicle=LIDAR))


@pytest.mark.parametrize(("width", "height"), [(1600, 900), (400, 225), (704, 256), (160, 160)])
def test_synthetic_cameras_have_none(width: int, height: int) -> None:
    cameras = [
        Camera(
            camera.name,
            width,
            height,
            np.array(camera.intrinsic),
            Pose(np.array(camera.translation_m), camera.rotation_wxyz),
        )
        for camera in make_rig(np.random.default_rng(0), width, height)
    ]
    assert not mistakes_of_rig(Rig(cameras))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real nuScenes in {REAL}")
def test_real_cameras_have_none_and_their_inverses_are_found() -> None:
    rows = json.loads((REAL / "calibrated_sensor.json").read_text())
    cameras = [
        Camera(
            f"camera {number}",
            1600,
            900,
            row["camera_intrinsic"],
            Pose.of_row([*row["translation"], *row["rotation"]]),
        )
        for number, row in enumerate(row for row in rows if row["camera_intrinsic"])
    ]
    assert len(cameras) >= 6 and not mistakes_of_rig(Rig(cameras))
    for change, message in (
        (np.linalg.inv, INVERSE),
        (lambda m: m @ BODY, "x forward, y left, z up"),
        (lambda m: m @ GL, "OpenGL"),
    ):
        (line,) = mistakes_of_rig(changed(change, rig=Rig(cameras)))
        assert message in line


def test_strange_rigs_that_are_right_have_none() -> None:
    wide = intrinsics(500)
    parking = [
        Camera(name, 1600, 900, wide, looking(yaw, 70, place))
        for name, yaw, place in (
            ("front", 0, (3.7, 0, 0.6)),
            ("left", 90, (2.0, 1, 1.0)),
            ("right", -90, (2.0, -1, 1.0)),
            ("rear", 180, (-0.9, 0, 0.9)),
        )
    ]
    stereo = [
        Camera(name, 1600, 900, wide, looking(0, 0, (1.5, y, 1.4)))
        for name, y in (("left", 0.2), ("right", -0.2), ("front_left", 0.5), ("front_right", -0.5))
    ]
    one = [Camera("camera", 1600, 900, wide, looking(37, 25, (0, 0, 0.2)))]
    for cameras in (parking, stereo, one):
        assert not mistakes_of_rig(Rig(cameras))


POSES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "inverse": (np.linalg.inv, INVERSE),
    "body axes": (lambda m: m @ BODY, "x forward, y left, z up"),
    "OpenGL": (lambda m: m @ GL, "OpenGL's x right, y up, z backward"),
    "inverse body": (lambda m: np.linalg.inv(m @ BODY), f"{INVERSE}; and its axes look like x"),
    "inverse OpenGL": (lambda m: np.linalg.inv(m @ GL), f"{INVERSE}; and its axes look like Open"),
    "upside down": (lambda m: m @ np.diag([-1.0, -1, 1, 1]), "pictures are upside down: turn"),
    "on the left": (lambda m: m @ ON_SIDE, "pictures lie on their side"),
    "on the right": (lambda m: m @ ON_SIDE.T, "pictures lie on their side"),
    "in the lidar": (lambda m: np.linalg.inv(LIDAR) @ m, "look 90 degrees .* as nuScenes' lidar"),
    "x backward": (lambda m: np.diag([-1.0, -1, 1, 1]) @ m, "look 180 degrees .* x backward"),
    "on the roof": (lambda m: m - [[0] * 4, [0] * 4, [0, 0, 0, 2], [0] * 4], "below the road"),
    "centimetres": (lambda m: np.c_[m[:, :3], m[:, 3] * [9, 9, 9, 1]], "far above a vehicle"),
    "one place": (lambda m: np.c_[m[:, :3], [1, 0, 1.5, 1]], r"all are at \(1.00, 0.00, 1.50\)"),
}


@pytest.mark.parametrize("pitch_deg", [0, 10])
@pytest.mark.parametrize("mistake", POSES)
def test_a_mistake_of_all_poses_is_found_alone(mistake: str, pitch_deg: float) -> None:
    change, message = POSES[mistake]
    rig = six_cameras(pitch_deg)
    (line,) = mistakes_of_rig(changed(change, rig=rig))
    assert line.startswith(f"cameras {', '.join(rig.names)}: ")
    assert re.search(message, line), line


@pytest.mark.parametrize("name", six_cameras().names)
@pytest.mark.parametrize("mistake", ["inverse", "body axes", "OpenGL", "upside down"])
def test_a_mistake_of_one_pose_is_found_with_its_camera(mistake: str, name: str) -> None:
    change, message = POSES[mistake]
    (line,) = mistakes_of_rig(changed(change, name))
    assert line.startswith(f"camera {name}: ") and message in line


def test_cameras_that_were_mixed_up_are_found() -> None:
    left, right = (six_cameras().camera(f"CAM_FRONT_{side}") for side in ("LEFT", "RIGHT"))
    others = [c for c in six_cameras().cameras if c.name not in (left.name, right.name)]
    swapped = Rig([*others, replace(left, name=right.name), replace(right, name=left.name)])
    lines = mistakes_of_rig(swapped)
    assert [line.split(":")[0] for line in lines] == [
        "camera CAM_FRONT_RIGHT",
        "camera CAM_FRONT_LEFT",
    ]
    assert "it looks 55 degrees from straight ahead" in lines[0]


def test_an_axis_that_no_habit_explains_is_found() -> None:
    turned = changed(lambda m: m @ looking(40, 60, (0, 0, 0)), "CAM_FRONT")
    (line,) = mistakes_of_rig(turned)
    assert line.startswith("camera CAM_FRONT: the y axis of CAM_FRONT points to (")
    assert line.endswith("check its rotation")


@pytest.mark.parametrize(("scale", "size"), [(0.75, "1200x675"), (1.25, "2000x1125")])
def test_intrinsics_of_another_size_are_found(scale: float, size: str) -> None:
    rig = six_cameras()
    other = np.diag([scale, scale, 1.0]) @ intrinsics(center=(800, 450))
    cameras = [replace(rig.cameras[0], intrinsics=other), *rig.cameras[1:]]
    (line,) = mistakes_of_rig(Rig(cameras))
    assert line.startswith("camera CAM_FRONT: the principal point") and f"a {size} picture" in line


@pytest.mark.parametrize(
    ("place", "pitch_deg", "message"),
    [
        ((0.9, 0, 0.0), 0, "it is 0.00 m above the road"),
        ((0.9, 0, 18.4), 0, "it is 18.40 m above the road"),
        ((0.9, 0, 1.84), 40, "its z axis points 0.77 upwards"),
    ],
)
def test_a_reference_frame_at_a_strange_place_is_found(
    place: tuple[float, ...], pitch_deg: float, message: str
) -> None:
    pose = looking(0, pitch_deg, place) @ BODY
    (line,) = mistakes_of_rig(replace(six_cameras(), reference_to_vehicle=pose))
    assert line.startswith("reference_to_vehicle: ") and message in line
