"""A drive in a folder: what it gives, and what is wrong with one."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from drive_folder import (
    CAMERAS,
    picture,
    rig_values,
    rows_of_drive,
    write_csv,
    write_drive,
    write_video,
)

from streampetr_vit.errors import InputError, MissingFileError, UserError
from streampetr_vit.inference.sources.folder import FolderSource

Rows = list[dict[str, Any]]


def test_frames_in_order_with_their_pictures_and_poses(tmp_path: Path) -> None:
    source = FolderSource(write_drive(tmp_path / "my drive", 3))
    assert source.scenes == [("my drive", 3)]
    moments = list(source.frames("my drive"))
    assert [moment.name for moment in moments] == ["000000", "000001", "000002"]
    assert moments[1].scene == "my drive" and moments[1].timestamp_s == 1e9 + 0.5
    assert moments[2].pictures["left"] == tmp_path / "my drive" / "left" / "000002.png"
    assert moments[1].rig.names == CAMERAS and not moments[1].camera_vehicle_to_world
    np.testing.assert_array_equal(moments[1].vehicle_to_world.translation_m, [5, 1, 0])
    np.testing.assert_array_equal(moments[1].vehicle_to_world.rotation_wxyz, [1, 0, 0, 0])
    assert source.frames_per_second("my drive") == 2.0
    assert [moment.name for moment in source.frames("my drive", 2)] == ["000002"]
    assert list(source.frames("my drive", 3)) == []


def test_scenes_names_columns_of_pictures_and_poses_of_cameras(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "d", 4)
    rows = rows_of_drive(4, ["a", "b"])
    for index, row in enumerate(rows):
        row |= {"frame": f"f{index}", "left": "" if index == 1 else f"left/00000{index}.png"}
        pose = dict.fromkeys(("x", "y", "z", "qw", "qx", "qy", "qz"), "")
        if index == 2:
            pose |= {"x": 7.5, "y": 1, "z": 0, "qw": 0, "qx": 0, "qy": 0, "qz": 1}
        row |= {f"front.{name}": value for name, value in pose.items()}
        (folder / "front" / f"00000{index}.png").rename(folder / "front" / f"f{index}.PNG")
    rows[2]["timestamp_s"] = 3.0  # another scene may be earlier
    rows[3]["timestamp_s"] = 3.5
    write_csv(folder, rows)
    source = FolderSource(folder)
    assert source.scenes == [("a", 2), ("b", 2)]
    first, second = source.frames("a")
    assert second.pictures == {"front": folder / "front" / "f1.PNG", "left": None}
    assert not first.camera_vehicle_to_world
    moment = next(source.frames("b"))
    assert moment.name == "f2" and moment.scene == "b"
    pose = moment.camera_vehicle_to_world["front"]
    assert pose.translation_m.tolist() == [7.5, 1, 0]
    assert pose.rotation_wxyz.tolist() == [0, 0, 0, 1]


def test_angles_in_place_of_quaternions(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "d", 2)
    rows = [{k: v for k, v in row.items() if k[0] != "q"} for row in rows_of_drive(2)]
    for row in rows:
        row |= {"yaw_rad": 0.4, "pitch_rad": 0.2, "roll_rad": -0.1}
    write_csv(folder, rows)

    def turn(axis: int, angle: float) -> np.ndarray:
        matrix, (a, b) = np.eye(3), [(1, 2), (2, 0), (0, 1)][axis]
        matrix[a, a] = matrix[b, b] = np.cos(angle)
        matrix[b, a] = np.sin(angle)
        matrix[a, b] = -np.sin(angle)
        return matrix

    pose = next(FolderSource(folder).frames("d")).vehicle_to_world
    wanted = turn(2, 0.4) @ turn(1, 0.2) @ turn(0, -0.1)
    np.testing.assert_allclose(pose.matrix()[:3, :3], wanted, atol=1e-12)
    write_csv(folder, [{k: v for k, v in r.items() if k[:2] not in ("pi", "ro")} for r in rows])
    pose = next(FolderSource(folder).frames("d")).vehicle_to_world
    np.testing.assert_allclose(pose.matrix()[:3, :3], turn(2, 0.4), atol=1e-12)


def write_jsonl(folder: Path, lines: list[Any]) -> None:
    (folder / "frames.csv").unlink(missing_ok=True)
    (folder / "frames.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def json_lines(folder: Path, count: int = 3) -> Rows:
    """Lines that say what frames.csv of `write_drive` says."""
    lines = []
    for index in range(count):
        pose = {"translation": [5.0 * index, 1, 0], "rotation": [1, 0, 0, 0]}
        lines.append({"timestamp_s": 1e9 + 0.5 * index, "vehicle_to_world": pose})
    return lines


def test_json_lines_say_the_same(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "d", 3)
    wanted = list(FolderSource(folder).frames("d"))
    lines = json_lines(folder)
    lines[1]["vehicle_to_world"] = wanted[1].vehicle_to_world.matrix().tolist()
    for index, line in enumerate(lines):
        line["pictures"] = {"left": f"left/00000{index}.png", "front": None}
    lines[2]["camera_vehicle_to_world"] = {
        "left": {"translation": [9, 1, 0], "rotation": [1, 0, 0, 0]}
    }
    write_jsonl(folder, lines)
    for moment, other in zip(FolderSource(folder).frames("d"), wanted, strict=True):
        assert (moment.name, moment.scene) == (other.name, other.scene)
        assert moment.timestamp_s == other.timestamp_s
        np.testing.assert_array_equal(
            moment.vehicle_to_world.matrix(), other.vehicle_to_world.matrix()
        )
        assert moment.pictures == {"front": None, "left": other.pictures["left"]}
    assert moment.camera_vehicle_to_world["left"].translation_m.tolist() == [9, 1, 0]


@pytest.mark.parametrize("ending", [".mp4", ".avi"])
def test_a_video_gives_the_pictures(tmp_path: Path, ending: str) -> None:
    folder = write_drive(tmp_path / "d", 6, scenes=["a", "b"])
    shutil.rmtree(folder / "front")
    write_video(folder / f"front{ending}", 6)
    source = FolderSource(folder)
    for scene, first in (("a", 0), ("b", 3)):
        for index, moment in enumerate(source.frames(scene)):
            image = moment.pictures["front"]
            assert image.dtype == np.uint8 and image.shape == (48, 64, 3)
            assert np.abs(image.astype(int) - picture(first + index)).mean() < 8  # it is RGB
            assert isinstance(moment.pictures["left"], Path)
    whole = [moment.pictures["front"] for moment in source.frames("b")]
    for start in (1, 2):
        late = [moment.pictures["front"] for moment in source.frames("b", start)]
        np.testing.assert_array_equal(late, whole[start:])


def columns(change: Callable[[Rows], object]) -> Callable[[Path], None]:
    """Writes frames.csv anew with changed rows."""

    def apply(folder: Path) -> None:
        rows = rows_of_drive(4)
        change(rows)
        write_csv(folder, rows)

    return apply


def cell(row: int, column: str, value: Any) -> Callable[[Path], None]:
    return columns(lambda rows: rows[row].update({column: value}))


def column(name: str, values: list[Any]) -> Callable[[Path], None]:
    return columns(lambda rows: [r.update({name: v}) for r, v in zip(rows, values, strict=True)])


def without(name: str) -> Callable[[Path], None]:
    return columns(lambda rows: [row.pop(name) for row in rows])


def times(step: float) -> Callable[[Path], None]:
    return column("timestamp_s", [1000 + step * index for index in range(4)])


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def appended(content: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        with (folder / "frames.csv").open("a") as file:
            file.write(content)

    return apply


def camera_pose(**changes: Any) -> Callable[[Path], None]:
    pose = {"x": 0, "y": 0, "z": 0, "qw": 1, "qx": 0, "qy": 0, "qz": 0} | changes
    return columns(lambda rows: [r.update({f"left.{k}": v for k, v in pose.items()}) for r in rows])


def angles(value: float) -> Callable[[Path], None]:
    def change(rows: Rows) -> None:
        for row in rows:
            for name in ("qw", "qx", "qy", "qz"):
                del row[name]
            row["yaw_rad"] = value

    return columns(change)


def no_file(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def no_folder(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / name)


def video(count: int, size: tuple[int, int] = (64, 48), ending: str = ".mp4") -> Callable:
    def apply(folder: Path) -> None:
        shutil.rmtree(folder / "left")
        write_video(folder / f"left{ending}", count, size)

    return apply


def video_of_bytes(content: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        shutil.rmtree(folder / "left")
        (folder / "left.mp4").write_bytes(content)

    return apply


def two_videos(folder: Path) -> None:
    video(4)(folder)
    write_video(folder / "left.avi", 4)


def camera_named(name: str) -> Callable[[Path], object]:
    return text("rig.yaml", yaml.safe_dump(rig_values(["front", name])))


def line(index: int, **changes: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        lines = json_lines(folder, 4)
        lines[index].update(changes)
        write_jsonl(folder, [{k: v for k, v in one.items() if v != "none"} for one in lines])

    return apply


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no rig": (no_file("rig.yaml"), "has no rig.yaml"),
    "no table": (no_file("frames.csv"), "has no frames.csv or frames.jsonl"),
    "two tables": (text("frames.jsonl", "{}"), "has frames.csv and frames.jsonl"),
    "empty table": (text("frames.csv", ""), "no column timestamp_s"),
    "no rows": (text("frames.csv", "timestamp_s,x,y,z,qw,qx,qy,qz\n"), "has no frames"),
    "no UTF-8": (text("frames.csv", b"timestamp_s,\xff\n"), "no CSV file in UTF-8"),
    "open quote": (appended('"1,'), "no CSV file"),
    "semicolons": (text("frames.csv", "timestamp_s;x;y\n1;2;3\n"), "semicolons"),
    "no time": (without("timestamp_s"), "no column timestamp_s"),
    "no y": (without("y"), "no column y;"),
    "no qz": (without("qz"), "no column qz;"),
    "unknown column": (column("fornt", [""] * 4), "column 'fornt', which is unknown .nearest: fr"),
    "unknown part": (column("left.w", [1] * 4), "column 'left.w', which is unknown"),
    "column twice": (text("frames.csv", "x,x\n"), "column 'x' twice"),
    "angles as well": (column("yaw_rad", [0] * 4), "either the quaternion or the angles"),
    "short row": (appended("1,2\n"), "line 6: 2 values for 8 columns"),
    "text for a number": (cell(2, "qw", "one"), "line 4, column qw is 'one'"),
    "empty number": (cell(2, "x", ""), "line 4, column x is empty"),
    "NaN pose": (cell(1, "y", "nan"), "line 3, column y is 'nan'"),
    "infinite time": (cell(3, "timestamp_s", "inf"), "line 5, column timestamp_s is 'inf'"),
    "long quaternion": (cell(3, "qx", 1), r"line 5: the quaternion \(.*\) is 1 1 0 0, of length"),
    "no turn": (cell(0, "qw", 0), "line 2: the quaternion .*of length 0;"),
    "far": (cell(1, "z", 1e9), r"line 3: the position \(x, y, z\) is 5 1 1e\+09; give metres"),
    "degrees": (angles(90), "column yaw_rad is 90; give radians"),
    "same time": (cell(2, "timestamp_s", 1e9 + 0.5), "line 4: timestamp_s 1000000000.500000 does"),
    "time back": (cell(3, "timestamp_s", 0), "line 5: timestamp_s 0.000000 does not come after"),
    "milliseconds": (times(100), "100 apart .median. and look like milliseconds; give seconds"),
    "microseconds": (times(33333), "look like microseconds"),
    "nanoseconds": (times(5e8), "look like nanoseconds"),
    "too fast": (times(1e-4), "are 0.0001 apart .median.; give seconds"),
    "frame twice": (column("frame", list("abca")), "line 5: frame 'a' is there already, in line 2"),
    "no frame name": (column("frame", ["a", "", "b", "c"]), "line 3: frame is empty"),
    "no scene name": (column("scene", ["a", "a", "", "c"]), "line 4: scene is empty"),
    "scene apart": (column("scene", list("aaba")), "line 5: scene 'a' goes on after another"),
    "picture outside": (
        column("left", [f"left/00000{i}.png" for i in range(3)] + ["../x.png"]),
        r"line 5: picture '../x.png' of camera left is not below",
    ),
    "absolute picture": (column("left", ["/etc/passwd"] * 4), "line 2: picture '/etc/passwd' of"),
    "missing picture": (
        column("left", ["", "left/000001.png", "left/1.png", "no/3.png"]),
        "line 4: picture 'left/1.png' of camera left, frame '000002', is not in .*2 of 4 are mis",
    ),
    "missing in folder": (no_file("left/000003.png"), "line 5: picture 'left/000003.jpg' of camer"),
    "no picture at all": (
        columns(
            lambda rows: [
                r.update(left="", front="" if i == 2 else "left/000000.png")
                for i, r in enumerate(rows)
            ]
        ),
        "line 4: no camera has a picture; leave the frame out",
    ),
    "two endings": (text("left/000001.jpg", ""), "has 000001.jpg and 000001.png"),
    "no pictures": (no_folder("left"), "camera left has no pictures in"),
    "half a pose of a camera": (camera_pose(qw=""), "the pose of camera left is 0 0 0 nan"),
    "long quaternion of a camera": (camera_pose(qw=3), "the quaternion of camera left"),
    "no z of a camera": (
        columns(
            lambda rows: [r.update({"left.x": 1, "left.y": 1, "left.yaw_rad": 0}) for r in rows]
        ),
        "no column left.z;",
    ),
    "short video": (video(3), "decoded is 3, and must be 4, one .*frames.csv"),
    "long video": (video(6, ending=".avi"), "left.avi of camera left: .* is 6, and"),
    "video of another size": (video(4, (32, 24)), "is 32x24 pixels, and rig.yaml says 64x48"),
    "no video": (video_of_bytes(b"#EXTM3U\nhttp://x/y"), "is no MP4, AVI, MKV or MOV file"),
    "broken video": (video_of_bytes(b"\0\0\0\x18ftypmp42" + b"x" * 99), "cannot be decoded"),
    "two videos": (two_videos, "has left.avi and left.mp4, both of camera left"),
    "camera with the name of a column": (camera_named("scene"), "camera 'scene' has the name of"),
    "camera with the name of a folder outside": (camera_named("../left"), r"\.\./left"),
    "no JSON": (line(1, timestamp_s="none"), "line 2 has no timestamp_s"),
    "unknown field": (line(2, scnee="a"), "line 3 has the unknown key 'scnee'.*scene"),
    "text for seconds": (line(2, timestamp_s="1"), "timestamp_s of .*line 3 is '1'"),
    "number for a name": (line(0, frame=7), "frame of .*line 1 is 7"),
    "pose of nothing": (line(1, vehicle_to_world=[1, 2]), "vehicle_to_world of .*line 2"),
    "unknown camera": (line(0, pictures={"lfet": None}), "line 1 names camera 'lfet'.*left"),
    "pictures of some": (line(0, pictures={"left": None}), "line 2 has no pictures"),
    "pictures later": (line(1, pictures={"left": None}), "line 2 has pictures of left, and the"),
    "pictures that are none": (line(0, pictures=[1]), "line 1 has .1.; give a mapping"),
    "infinite JSON": (line(3, timestamp_s=float("inf")), "line 4.*is inf"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_bad_folder_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    break_it, message = BAD_FOLDERS[case]
    folder = write_drive(tmp_path / "d", 4)
    FolderSource(folder)
    break_it(folder)
    with pytest.raises(UserError, match=message) as error:
        FolderSource(folder)
    assert isinstance(error.value, (InputError, MissingFileError))
    assert len(str(error.value).splitlines()) == 1


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="is no folder"):
        FolderSource(tmp_path / "d")


@pytest.mark.parametrize("content", ["[1, 2", "\xff", "[" * 100_000])
def test_a_line_that_is_no_json(tmp_path: Path, content: str) -> None:
    folder = write_drive(tmp_path / "d", 1)
    (folder / "frames.csv").unlink()
    (folder / "frames.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="frames.jsonl, line 1 is no JSON object"):
        FolderSource(folder)


def test_missing_files_may_be_left_to_the_reader(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "d", 2)
    (folder / "left" / "000001.png").unlink()
    *_, last = FolderSource(folder, may_miss_pictures=True).frames("d")
    assert last.pictures["left"] == folder / "left" / "000001.jpg"


def test_a_camera_may_have_no_pictures_if_that_is_allowed(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "d", 2)
    shutil.rmtree(folder / "left")
    moment = next(FolderSource(folder, allow_missing_cameras=True).frames("d"))
    assert moment.pictures == {"front": folder / "front" / "000000.png", "left": None}


def test_pictures_without_a_frame_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_drive(tmp_path / "d", 4)
    write_csv(folder, rows_of_drive(2))
    with caplog.at_level(logging.WARNING):
        FolderSource(folder)
    assert "2 pictures in" in caplog.text and "the first is '000002.png'" in caplog.text


def test_unknown_scenes_and_starts(tmp_path: Path) -> None:
    source = FolderSource(write_drive(tmp_path / "d", 2, scenes=["north", "south"]))
    with pytest.raises(InputError, match="scene 'nroth' is unknown; there are north, south"):
        source.frames("nroth")
    with pytest.raises(InputError, match="start 2: scene 'south' has 1 frames"):
        source.frames("south", 2)


def test_a_video_that_ends_early_is_an_error_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_drive(tmp_path / "d", 4)
    video(4)(folder)
    source = FolderSource(folder)
    write_video(folder / "left.mp4", 2)  # the file says 4 when it is opened
    with pytest.raises(InputError, match="decoded is 2, and must be more than 2;"):
        list(source.frames("d"))
    with pytest.raises(InputError, match="decoded is 2"):
        list(source.frames("d", 3))


def test_description_tells_tables_apart(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "d", 2)
    first = FolderSource(folder).description
    assert first == FolderSource(folder).description
    write_csv(folder, rows_of_drive(1))
    assert first != FolderSource(folder).description


def test_ten_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    folder = write_drive(tmp_path / "d", 1)
    rows = rows_of_drive(10_000)
    for row in rows:
        row |= {"front": "front/000000.png", "left": ""}
    write_csv(folder, rows)
    source = FolderSource(folder)
    assert source.scenes == [("d", 10_000)]
    assert next(source.frames("d", 9_999)).name == "009999"
