"""What cannot be is refused in one line, before any arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tiny_car import make_moment, make_predictor

from streampetr_vit.errors import InputError
from streampetr_vit.inference import Moment

POSE = np.eye(4)


def with_picture(change: Callable[[np.ndarray], Any]) -> Moment:
    moment = make_moment(0)
    return replace(moment, pictures=moment.pictures | {"left": change(moment.pictures["left"])})


def without_left() -> Moment:
    moment = make_moment(0)
    return replace(moment, pictures={n: p for n, p in moment.pictures.items() if n != "left"})


def at(pose: Any) -> Moment:
    return make_moment(0, vehicle_to_world=pose)


def matrix(changes: dict[tuple[int, int], float]) -> np.ndarray:
    changed = POSE.copy()
    for place, value in changes.items():
        changed[place] = value
    return changed


BAD: dict[str, tuple[Callable[[], Moment], str]] = {
    "unknown camera": (
        lambda: make_moment(0, pictures=make_moment(0).pictures | {"lefft": None}),
        "pictures name the camera 'lefft', which the rig does not have (nearest: left)",
    ),
    "missing camera": (without_left, "there is no picture of camera left: give one, or None for"),
    "no picture at all": (
        lambda: make_moment(0, pictures=dict.fromkeys(make_moment(0).pictures)),
        "no camera has a picture in this moment: leave the moment out",
    ),
    "list of pictures": (
        lambda: make_moment(0, pictures=[1, 2]),
        "pictures are a list: give {camera: picture}",
    ),
    "another size": (
        lambda: with_picture(lambda p: p[:20]),
        "picture of camera left is 64x20 pixels, the rig says 64x32: give pictures of that size",
    ),
    "channels first": (
        lambda: with_picture(lambda p: p.transpose(2, 0, 1)),
        "picture of camera left has the shape (3, 32, 64), channels first: give (32, 64, 3)",
    ),
    "grey": (
        lambda: with_picture(lambda p: p[:, :, 0]),
        "picture of camera left has the shape (32, 64): give (32, 64, 3), three channels",
    ),
    "four channels": (
        lambda: with_picture(lambda p: np.concatenate((p, p[:, :, :1]), axis=2)),
        "picture of camera left has the shape (32, 64, 4): give (32, 64, 3)",
    ),
    "float": (
        lambda: with_picture(lambda p: p / 255),
        "picture of camera left is float64: give uint8, 0 to 255",
    ),
    "bytes": (
        lambda: with_picture(lambda p: p.tobytes()),
        "picture of camera left is a bytes: give a numpy array (32, 64, 3) of uint8, or a path",
    ),
    "a path as rig": (
        lambda: make_moment(0, rig=make_moment(0).rig).__class__(
            {},
            "rig.yaml",
            POSE,
            0.0,  # type: ignore[arg-type]
        ),
        "rig is a str: give a Rig, such as Rig.load(FILE)",
    ),
    "NaN pose": (lambda: at(matrix({(0, 3): np.nan})), "vehicle_to_world has NaN or infinite"),
    "infinite pose": (lambda: at(matrix({(1, 1): np.inf})), "vehicle_to_world has NaN or infinite"),
    "3x4 pose": (lambda: at(POSE[:3]), "vehicle_to_world is of shape (3, 4): give a 4x4 matrix"),
    "no pose": (lambda: at("here"), "vehicle_to_world is 'here': give a 4x4 matrix, or a Pose"),
    "None as pose": (lambda: at(None), "vehicle_to_world is of shape (): give a 4x4 matrix"),
    "scaled pose": (
        lambda: at(np.diag([2.0, 2, 2, 1])),
        "vehicle_to_world has the upper left 2 0 0 0 2 0 0 0 2, which is no rotation",
    ),
    "mirrored pose": (
        lambda: at(np.diag([1.0, -1, 1, 1])),
        "vehicle_to_world has the upper left 1 0 0 0 -1 0 0 0 1, a mirror image",
    ),
    "row vectors": (
        lambda: at(matrix({(3, 0): 600.0})),
        "vehicle_to_world has the last row 600 0 0 1, not 0 0 0 1: give the matrix for column",
    ),
    "millimetres": (
        lambda: at(matrix({(0, 3): 1e9})),
        "vehicle_to_world has the translation 1e+09 0 0: give metres",
    ),
    "milliseconds": (
        lambda: make_moment(0, timestamp_s=1.5e12),
        "timestamp_s is 1500000000000, too many for seconds: divide milliseconds by 1e3",
    ),
    "NaN time": (lambda: make_moment(0, timestamp_s=np.nan), "timestamp_s is nan: give seconds"),
    "text as time": (
        lambda: make_moment(0, timestamp_s="12:30"),
        "timestamp_s is '12:30': give seconds, a finite number",
    ),
    "pose of no camera": (
        lambda: make_moment(0, camera_vehicle_to_world={"rer": POSE}),
        "camera_vehicle_to_world names the camera 'rer', which the rig does not have (nearest: rea",
    ),
    "bad pose of a camera": (
        lambda: make_moment(0, camera_vehicle_to_world={"rear": POSE[:3]}),
        "camera_vehicle_to_world of camera rear is of shape (3, 4): give a 4x4 matrix",
    ),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_moment_that_cannot_be_is_refused(make: tuple[Callable[[], Moment], str]) -> None:
    moment, says = make[0](), make[1]
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        make_predictor().predict_batch([moment])
    assert "\n" not in str(caught.value)
    named = replace(moment, scene="yard", name="000007")
    with pytest.raises(InputError, match=re.escape(f"yard 000007: {says}")):
        make_predictor().predict_batch([named])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_gap_s": 0}, "max_gap_s=0: give seconds, up to 30"),
        ({"max_gap_s": 31}, "max_gap_s=31: give seconds"),
        ({"frame_period_s": 2.0}, "frame_period_s=2.0 with max_gap_s=2: give seconds from 0 on"),
        ({"frame_period_s": -1}, "frame_period_s=-1"),
        ({"channel_order": "gbr"}, 'channel_order must be "rgb" or "bgr", not \'gbr\''),
        ({"on_bad_image": "skip"}, 'on_bad_image must be "raise" or "count", not \'skip\''),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        make_predictor(**options)
