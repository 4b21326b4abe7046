"""The values of a car's cameras: what is kept, and what each wrong one is told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hand_made_rig import intrinsics, looking, plain_camera, six_cameras

from streampetr_vit.errors import InputError
from streampetr_vit.structures import Camera, Distortion, Pose, Rig

K = intrinsics()
OTHER_SIZE = "looks like that of a 800x450 picture"


def rig_of(**changes: Any) -> Rig:
    return Rig.of({"cameras": {"front": plain_camera(**changes)}})


def test_a_camera_keeps_plain_arrays_and_nobody_can_change_them() -> None:
    given = looking(30)
    camera = Camera("front", np.int64(1600), 900, K.tolist(), given)
    assert isinstance(camera.camera_to_vehicle, Pose) and type(camera.width) is int
    np.testing.assert_allclose(camera.camera_to_vehicle.matrix(), given, atol=1e-12)
    pose = Pose.of_matrix(given)
    again = Camera("front", 1600, 900, K, pose, Distortion([0, 0, 0, 0]))
    pose.translation_m[0] = 99
    assert again.camera_to_vehicle.translation_m[0] == given[0, 3]
    assert again.distortion is not None
    for array in (again.intrinsics, again.camera_to_vehicle.rotation_wxyz):
        with pytest.raises(ValueError):
            array[0] = 0
    with pytest.raises(ValueError):
        again.distortion.coefficients[0] = 1


def test_matrices_that_were_computed_may_be_rounded() -> None:
    rounded = K + [[0, 1e-12, 0], [1e-15, 0, 0], [0, 1e-16, 1e-15]]
    assert (
        Camera("a", 1600, 900, rounded, looking(0), Distortion([0] * 5)).intrinsics[1, 0] == 1e-15
    )


def test_the_three_ways_to_write_a_pose_say_the_same() -> None:
    roll, pitch, yaw = 0.1, -0.2, 0.3
    cos, sin = np.cos, np.sin
    turns = [
        [[cos(yaw), -sin(yaw), 0], [sin(yaw), cos(yaw), 0], [0, 0, 1]],
        [[cos(pitch), 0, sin(pitch)], [0, 1, 0], [-sin(pitch), 0, cos(pitch)]],
        [[1, 0, 0], [0, cos(roll), -sin(roll)], [0, sin(roll), cos(roll)]],
    ]
    matrix = np.eye(4)
    matrix[:3, :3] = np.linalg.multi_dot([np.array(turn) for turn in turns])
    matrix[:3, 3] = 1, 2, 3
    rotation = Pose.of_matrix(matrix).rotation_wxyz.tolist()
    forms = [
        matrix.tolist(),
        {"translation": [1, 2, 3], "rotation": rotation},
        {"translation": [1, 2, 3], "roll_pitch_yaw_rad": [roll, pitch, yaw]},
    ]
    for form in forms:
        pose = rig_of(camera_to_vehicle=form).cameras[0].camera_to_vehicle
        np.testing.assert_allclose(pose.matrix(), matrix, atol=1e-12)


def test_a_camera_is_found_by_its_name() -> None:
    rig = six_cameras()
    assert rig.camera("CAM_BACK") is rig.cameras[3]
    with pytest.raises(InputError, match="no camera 'CAM_BAK': did you mean CAM_BACK?"):
        rig.camera("CAM_BAK")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intrinsics": np.eye(4).tolist()}, r"shape \(4, 4\): give the 3x3"),
        ({"intrinsics": "no"}, "'no': give the 3x3"),
        ({"intrinsics": [[1, 2], [3]]}, "give the 3x3"),
        ({"intrinsics": (K * math.nan).tolist()}, "NaN"),
        ({"intrinsics": K.T.tolist()}, "last row 816 491 1, not 0 0 1: transpose it"),
        ({"intrinsics": (K + [[0], [0], [1]]).tolist()}, "last row 1 1 2, not 0 0 1: give fx"),
        ({"intrinsics": [[1000, 0, 800], [3, 1000, 450], [0, 0, 1]]}, "has 3 where 0 must be"),
        ({"intrinsics": [[-1000, 0, 800], [0, 1000, 450], [0, 0, 1]]}, "must be above 0"),
        ({"intrinsics": [[1000, 0, 800], [0, 1000, 950], [0, 0, 1]]}, "outside of pictures"),
        ({"intrinsics": [[10, 0, 800], [0, 10, 450], [0, 0, 1]]}, "would see 179 degrees"),
        ({"intrinsics": [[1e6, 0, 800], [0, 1e6, 450], [0, 0, 1]]}, "would see 0.0917 degrees"),
        ({"intrinsics": [[0.8, 0, 0.5], [0, 1.4, 0.5], [0, 0, 1]]}, "normalised: multiply"),
        ({"intrinsics": (np.diag([0.5, 0.5, 1]) @ K).tolist()}, OTHER_SIZE),
        ({"width": 800, "height": 450}, "looks like that of a 1600x900 picture"),
        ({"width": 704, "height": 256}, "looks like that of a 1632x982 picture"),
        ({"width": 1600.5}, "width of camera front is 1600.5: give a whole number, 1 to 20000"),
        ({"height": True}, "height of camera front is True"),
        ({"height": 20001}, "1 to 20000"),
        ({"camera_to_vehicle": None}, "is None: give a 4x4 matrix"),
        ({"camera_to_vehicle": K.tolist()}, r"shape \(3, 3\): give a 4x4"),
        ({"camera_to_vehicle": looking(0, place=(1700, 0, 0)).tolist()}, "of 1700 m: give metres"),
        ({"camera_to_vehicle": {"translation": [1, 2, 3]}}, "and rotation or roll_pitch_yaw_rad"),
        ({"distortion": [1, 2, 3]}, r"camera front: distortion is \[1, 2, 3\]: give 4 or 5"),
        ({"distortion": [1, 2, 3, math.inf]}, "camera front: distortion has NaN or infinite"),
        ({"distortion": {"model": "fish", "coefficients": [0] * 4}}, "pinhole or fisheye"),
        ({"distortion": {"model": "fisheye", "coefficients": [0] * 5}}, "give 4 numbers"),
        ({"distortion": {"coeficients": [0] * 4}}, "did you mean coefficients?"),
        ({"extrinsics": looking(0).tolist()}, "'extrinsics': it may have width"),
        ({"widht": 1}, "camera front has the unknown key 'widht'"),
    ],
)
def test_a_wrong_value_is_told_with_its_camera(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        rig_of(**changes)
    assert "front" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        ({"rotation": [0.5, 0.5, 0.5, 0.7]}, "of length 1.114: give a unit quaternion"),
        ({"roll_pitch_yaw_rad": [0, 0, 90]}, "0 0 90, which look like degrees"),
        ({"roll_pitch_yaw_deg": [0, 0, 90]}, "did you mean roll_pitch_yaw_rad?"),
        ({"rotation": [1, 0, 0, 0], "roll_pitch_yaw_rad": [0, 0, 0]}, "rotation or roll_pitch"),
        ({"rotation": looking(0).tolist()}, r"give a unit quaternion \[w, x, y, z\]"),
    ],
)
def test_a_wrong_rotation_is_told(pose: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rig_of(camera_to_vehicle={"translation": [1, 0, 1], **pose})


def test_a_fisheye_may_see_behind_itself_but_its_straight_picture_may_not() -> None:
    wide = [[500, 0, 800], [0, 500, 450], [0, 0, 1]]  # 183 degrees
    lens = {"model": "fisheye", "coefficients": [0, 0, 0, 0]}
    assert rig_of(intrinsics=wide, distortion=lens).cameras[0].distortion is not None
    tight = {**lens, "undistorted_intrinsics": (np.diag([0.5, 0.5, 1]) @ K).tolist()}
    with pytest.raises(InputError, match=f"undistorted_intrinsics of camera front.*{OTHER_SIZE}"):
        rig_of(intrinsics=wide, distortion=tight)
    with pytest.raises(InputError, match="skew 2"):
        rig_of(intrinsics=(K + [[0, 2, 0], [0] * 3, [0] * 3]).tolist(), distortion=[0] * 4)


@pytest.mark.parametrize("name", ["a/b", "..", ".a", "a ", "a\nb", "", "x" * 61, 1, True, None])
def test_a_name_that_cannot_name_a_folder_is_refused(name: object) -> None:
    with pytest.raises(InputError, match="give a text that can name a folder"):
        Rig.of({"cameras": {name: plain_camera()}})


@pytest.mark.parametrize("name", ["CAM_FRONT", "front left", "x", "0", "left-120.f", "später"])
def test_usual_names_are_taken(name: str) -> None:
    assert Rig.of({"cameras": {name: plain_camera()}}).names == (name,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1], r"the rig is \[1\]: give a mapping with cameras"),
        ({}, "has no cameras"),
        ({"camera": {}}, "did you mean cameras?"),
        ({"cameras": {}}, "at least one"),
        ({"cameras": 3}, "cameras is 3"),
        ({"cameras": [plain_camera()]}, "camera 0 of the list .* give it a name"),
        ({"cameras": [{"name": "a", **plain_camera()}] * 2}, "two cameras have the name a"),
        ({"cameras": {"a": {"width": 3}}}, "camera a has no height"),
        ({"cameras": {"a": plain_camera()}, "reference_to_vehicle": 3}, "reference_to_vehicle is"),
    ],
)
def test_a_wrong_rig_is_told(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rig.of(values)


def test_values_of_other_kinds_are_refused_in_python_too() -> None:
    with pytest.raises(InputError, match="give a list of Camera"):
        Rig([plain_camera()])  # type: ignore[list-item]
    with pytest.raises(InputError, match="give a Distortion, or None"):
        Camera("a", 1600, 900, K, looking(0), [0, 0, 0, 0])
