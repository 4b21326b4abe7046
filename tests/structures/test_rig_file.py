"""Files of a rig: read as they were written, and refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hand_made_rig import intrinsics, looking, plain_camera

from streampetr_vit.errors import InputError, MissingFileError, OutputError
from streampetr_vit.structures import Camera, Distortion, Rig

NUMBER = 1 / 3 * 1e-7  # with all the digits that a float has


def full_rig() -> Rig:
    lens = Distortion([-0.3, NUMBER, 1e-5, 0.0, 1e20], "pinhole")
    fisheye = Distortion([NUMBER, 0, 0, 0], "fisheye", intrinsics(400 + NUMBER))
    cameras = [
        Camera("front", 1600, 900, intrinsics(), looking(10.1), lens),
        Camera("1e5", 1600, 900, intrinsics(), looking(-77.7), fisheye),
        Camera("on", 1600, 900, intrinsics(), looking(170)),
    ]
    return Rig(cameras, looking(90))


@pytest.mark.parametrize("ending", ["yaml", "yml", "json"])
def test_a_rig_is_read_as_it_was_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rig.{ending}"
    full_rig().save(path)
    assert Rig.load(path).plain() == full_rig().plain()
    Rig.load(path).save(tmp_path / f"again.{ending}")
    assert (tmp_path / f"again.{ending}").read_bytes() == path.read_bytes()


def test_a_list_of_cameras_and_numbers_with_exponents_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(
        "cameras:\n"
        "- name: front\n"
        "  width: 1600\n"
        "  height: 900\n"
        "  intrinsics: [[1266, 0, 816], [0, 1266, 491], [0, 0, 1]]\n"
        "  camera_to_vehicle: {translation: [1.7, 0, 1.5], rotation: [0.5, -0.5, 0.5, -0.5]}\n"
        "  distortion: [1e-3, -2e-2, 0, 0]\n"
    )
    (camera,) = Rig.load(path).cameras
    assert camera.name == "front" and camera.distortion is not None
    assert camera.distortion.coefficients.tolist() == [1e-3, -2e-2, 0, 0]
    assert camera.distortion.model == "pinhole"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cameras: {a: 1, a: 2}", "line 1: 'a' is there twice"),
        ("a: &x [1]\nb: *x\n", r"line 2: \*x refers to another value; write that value out"),
        ("cameras: [1\n", "line 2: expected"),
        ("!!python/object/apply:os.system ['x']", "line 1: could not determine a constructor"),
        ("[" * 5000, "rig.yaml cannot be read as plain values"),
        ("\x00", "rig.yaml cannot be read as plain values"),
        (f"cameras: {'9' * 5000}", "rig.yaml cannot be read as plain values"),
        (f"cameras: {{}} # {'x' * 2**20}", "rig.yaml has 1048.* bytes, and a rig at most"),
        ("", "rig.yaml: the rig is None: give a mapping"),
        ("cameras: {front: {width: 3}}", "rig.yaml: camera front has no height"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        Rig.load(path)
    assert "\n" not in str(error.value)


def test_a_key_that_is_there_twice_in_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    path.write_text('{"cameras": {"a": 1, "b": 3, "a": 2}}')
    with pytest.raises(InputError, match="'a' is there twice"):
        Rig.load(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="none.yaml cannot be read"):
        Rig.load(tmp_path / "none.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path, tmp_path / "pipe.yaml"):
        with pytest.raises(InputError, match="no regular file"):
            Rig.load(path)
    (tmp_path / "latin.yaml").write_bytes(b"cameras: {sp\xe4t: 1}")
    with pytest.raises(InputError, match="no UTF-8"):
        Rig.load(tmp_path / "latin.yaml")
    with pytest.raises(OutputError):
        Rig.of({"cameras": {"a": plain_camera()}}).save(tmp_path / "latin.yaml" / "rig.yaml")
