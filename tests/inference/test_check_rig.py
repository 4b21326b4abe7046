"""tools/check_data.py --rig: what it prints, draws and refuses."""

from __future__ import annotations

from pathlib import Path

import check_data
import cv2
import numpy as np
import pytest
from drive_folder import CAMERAS, HEIGHT, WIDTH, write_drive
from hand_made_drive import drive, matrices
from hand_made_rig import looking, six_cameras

from streampetr_vit.errors import InputError
from streampetr_vit.inference.checks import DriveCheck
from streampetr_vit.structures import Camera, Distortion, Moment, Rig

K = np.array([[50, 0, WIDTH / 2], [0, 50, HEIGHT / 2], [0, 0, 1]])


def rig_of(*poses: np.ndarray, lens: Distortion | None = None) -> Rig:
    return Rig(
        [
            Camera(name, WIDTH, HEIGHT, K, pose, lens)
            for name, pose in zip(CAMERAS, poses, strict=True)
        ]
    )


RIGHT = rig_of(looking(0), looking(90, 0, (1.5, 0.5, 1.5)))


def checked(rig: Rig, poses: np.ndarray, **changes: object) -> DriveCheck:
    check = DriveCheck(rig)
    times, *_ = drive()
    pictures = dict.fromkeys(rig.names, "somewhere.jpg")
    for time, pose in zip(times, poses, strict=True):
        check.add(
            Moment(
                **{
                    "pictures": pictures,
                    "rig": rig,
                    "vehicle_to_world": pose,
                    "timestamp_s": time,
                    "scene": "one",
                    **changes,
                }
            )
        )  # type: ignore[arg-type]
    return check


def run(*arguments: object) -> int:
    return check_data.main([str(argument) for argument in arguments])


def test_a_rig_alone_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    six_cameras().save(tmp_path / "rig.yaml")
    assert run("--rig", tmp_path / "rig.yaml", "--out", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert "camera CAM_BACK: 1600x900, 89 x 58 degrees, straight, at (0.03, 0.00, 1.58) m" in out
    assert out.count("\n") == 7 and not err
    picture = cv2.imread(str(tmp_path / "out" / "rig.png"))
    assert picture.shape[1] > 3 * 480 and picture.std() > 10


def test_a_drive_is_looked_over_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_drive(tmp_path / "drive", 4)
    rig_of(looking(0), looking(90, 0, (1, 1, 1)), lens=Distortion([0.05, 0, 0, 0])).save(
        tmp_path / "rig.yaml"
    )
    where = ["--rig", tmp_path / "rig.yaml", "--folder", folder, "--out", tmp_path / "out"]
    assert run(*where, "--draw", 2) == 0
    out, err = capsys.readouterr()
    assert "camera front: 64x48, 65 x 51 degrees, pinhole, at" in out
    assert "yaw 90, 0 degrees" in out and "4 of 4 pictures" in out
    assert "4 frames in 1.5 s, a way of 15 m" in out and not err
    pictures = sorted((tmp_path / "out").glob("*_rig.png"))
    assert len(pictures) == 2
    for path in pictures:
        assert str(path) in out and cv2.imread(str(path)).std() > 10


def test_mistakes_are_printed_and_are_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rig_of(*(np.linalg.inv(c.camera_to_vehicle.matrix()) for c in RIGHT.cameras)).save(
        tmp_path / "rig.yaml"
    )
    assert run("--rig", tmp_path / "rig.yaml", "--out", tmp_path) == 1
    out, err = capsys.readouterr()
    assert err.startswith("mistake? cameras front, left: ") and "give its inverse" in err
    assert (tmp_path / "rig.png").is_file() and err.count("\n") == 1


def test_each_scene_is_a_drive_of_its_own() -> None:
    times, yaws, places = drive()
    right = matrices(yaws, places)
    assert not checked(RIGHT, right).mistakes()
    check = checked(RIGHT, right)
    for number in range(20):  # elsewhere, and before: as another scene it is right
        check.add(Moment({"front": None}, RIGHT, right[number], times[number] - 1e6, scene="two"))
    assert not check.mistakes()
    check = checked(RIGHT, np.linalg.inv(right))
    (line,) = check.mistakes()
    assert line.startswith("scene one, all frames: ") and "world_to_vehicle" in line


def test_cameras_without_any_picture_and_poses_of_other_worlds_are_found() -> None:
    _, yaws, places = drive()
    poses = matrices(yaws, places)
    (line,) = checked(RIGHT, poses, pictures={"front": "a.jpg", "left": None}).mistakes()
    assert line.startswith("camera left: it has no picture in any of 60 frames")
    check = checked(RIGHT, poses, pictures={"front": "a.jpg", "left": None})
    check.add(Moment({"left": "a.jpg"}, RIGHT, poses[0], 0.0, scene="two"))
    assert not check.mistakes()
    (line,) = checked(RIGHT, poses, camera_vehicle_to_world={"left": np.eye(4)}).mistakes()
    assert line.startswith("scene one, frame 0: the pose of the vehicle for camera left is 1342 m")
    with pytest.raises(InputError, match="camera left in frame 0 of scene one is of shape"):
        checked(RIGHT, poses, camera_vehicle_to_world={"left": np.eye(3)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--out o", "one of the arguments --root --rig is required"),
        ("--rig r --root d --version v --out o", "not allowed with argument"),
        ("--root d --out o", "--root needs --version"),
        ("--root d --version v --folder f --out o", "--folder does not go with --root"),
        ("--rig r --split val --out o", "--split does not go with --rig"),
        ("--rig r --config-file c --out o", "--config-file does not go with --rig"),
        ("--rig none.yaml --out o", "none.yaml cannot be read"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    arguments: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        check_data.main(arguments.split())
    assert message in (capsys.readouterr().err or str(stop.value.code))
