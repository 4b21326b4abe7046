"""Recordings for rerun are read back with rerun's own reader."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from moments import SIZES, VEHICLE, found, moment

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.structures import Moment, Pose
from streampetr_vit.visualization import rerun_recording as module
from streampetr_vit.visualization.colors import CLASS_COLORS
from streampetr_vit.visualization.rerun_recording import rerun_recording

rr = pytest.importorskip("rerun", reason="the extra `rerun` is not installed")
# rerun only warns of what it cannot convert, and leaves it out.
pytestmark = pytest.mark.filterwarnings("error::rerun.error_utils.RerunWarning")

FRAMES = 4
FRONT = "/world/vehicle/cameras/front"


def record(path: Path, *moments: Moment, **options: Any) -> None:
    """Writes moments; nothing is found in the last one."""
    with rerun_recording(path, **options) as recording:
        for number, moment in enumerate(moments):
            objects = found(number, starts_scene=number == 0)
            recording.write(moment, objects[:0] if number == FRAMES - 1 else objects)
        assert not path.exists()  # before it is complete


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four moments; the left camera drops out in the third."""
    moments = [moment(number) for number in range(FRAMES)]
    moments[2] = replace(moments[2], pictures={**moments[2].pictures, "left": None})
    path = tmp_path_factory.mktemp("drive") / "folder" / "drive.rrd"
    record(path, *moments)
    assert list(path.parent.iterdir()) == [path]
    return path


def column(path: Path, name: str, index: str = "frame") -> list[Any]:
    """The values of a component by time, None where nothing was logged."""
    table = rr.dataframe.load_recording(path).view(index=index, contents="/**").select().read_all()
    return table.column(name).to_pylist()


def test_timelines_and_entities(drive: Path) -> None:
    assert column(drive, "frame") == list(range(FRAMES))
    seconds = [
        value / np.timedelta64(1, "s")
        for value in map(np.timedelta64, column(drive, "time", "time"))
    ]
    assert seconds == pytest.approx([12.5, 13.0, 13.5, 14.0])
    schema = rr.dataframe.load_recording(drive).schema()
    entities = {entry.entity_path for entry in schema.component_columns()}
    cameras = {f"/world/vehicle/cameras/{name}" for name in SIZES}
    assert entities >= {"/world", "/world/vehicle", "/world/trajectory", *cameras}
    assert entities >= {"/world/vehicle/objects", "/world/vehicle/velocities"}
    assert entities >= {f"{camera}/picture" for camera in cameras}


def test_boxes_and_velocities_are_in_the_frame_of_the_vehicle(drive: Path) -> None:
    objects = "/world/vehicle/objects"
    centers = column(drive, f"{objects}:PoseTranslation3D")
    np.testing.assert_allclose(centers[:3], [found().centers] * 3, atol=1e-5)
    np.testing.assert_allclose(centers[0][0], [12.0, 3.0, 0.8], atol=1e-5)
    np.testing.assert_allclose(column(drive, f"{objects}:HalfSize3D")[0][0], [2.0, 1.0, 0.8])
    assert column(drive, f"{objects}:Text")[0] == ["car 0.75", "pedestrian 0.25"]
    labels = [NUSCENES.class_names.index(name) for name in ("car", "pedestrian")]
    assert column(drive, f"{objects}:ClassId")[0] == labels
    x, y, z, w = column(drive, f"{objects}:PoseRotationQuat")[0][1]
    assert np.hypot(x, y) == 0 and 2 * np.arctan2(z, w) == pytest.approx(-np.pi / 2)
    # The car drives, the pedestrian stands.
    arrows = "/world/vehicle/velocities"
    np.testing.assert_allclose(column(drive, f"{arrows}:Vector3D")[0], [[3.0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(column(drive, f"{arrows}:Position3D")[0], centers[0][:1])
    # Those of a moment go with it.
    assert [column(drive, f"{name}")[3] for name in (f"{objects}:Text", f"{arrows}:Vector3D")] == [
        [],
        [],
    ]


def test_the_vehicle_moves_from_where_it_was_first(drive: Path) -> None:
    places = np.array(column(drive, "/world/vehicle:Translation3D"))[:, 0]
    steps = VEHICLE.rotation().apply([[5.0 * number, 0, 0] for number in range(FRAMES)])
    np.testing.assert_allclose(places, steps, atol=1e-4)
    quaternion = column(drive, "/world/vehicle:RotationQuat")[0][0]
    np.testing.assert_allclose(quaternion, VEHICLE.rotation().as_quat(), atol=1e-6)
    line = column(drive, "/world/trajectory:LineStrip3D")[0][0]
    np.testing.assert_allclose(line, steps, atol=1e-4)
    # Static values are with every time.
    np.testing.assert_array_equal(column(drive, "/world:origin_m")[0], VEHICLE.translation_m)


def test_cameras_and_pictures(drive: Path) -> None:
    projection = np.reshape(column(drive, f"{FRONT}:PinholeProjection")[0], (3, 3)).T
    np.testing.assert_allclose(projection, [[200, 0, 160.5], [0, 200, 90.5], [0, 0, 1]])
    assert column(drive, f"{FRONT}:Resolution")[0] == [[320, 180]]
    np.testing.assert_allclose(
        column(drive, f"{FRONT}:Translation3D")[0], [[1.5, 0, 1.6]], atol=1e-6
    )
    for name, grey in zip(SIZES, (80, 100, 120, 140), strict=True):
        blobs = column(drive, f"/world/vehicle/cameras/{name}/picture:Blob")
        present = [blob is not None and len(blob) > 0 for blob in blobs]
        assert present == [True, True, name != "left", True]
        picture = cv2.imdecode(np.array(blobs[0][0], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1::-1] == SIZES[name]
        assert np.abs(picture.astype(int) - grey).max() <= 2


def test_a_dropped_camera_shows_nothing(drive: Path) -> None:
    columns = [
        str(column) for column in rr.dataframe.load_recording(drive).schema().component_columns()
    ]
    cleared = [name for name in columns if "ClearIsRecursive" in name]
    assert cleared == ["Component(/world/vehicle/cameras/left/picture:ClearIsRecursive)"]


def test_wide_pictures_are_made_smaller_and_the_pinhole_with_them(tmp_path: Path) -> None:
    path = tmp_path / "small.rrd"
    record(path, moment(), picture_width=160)
    projection = np.reshape(column(path, f"{FRONT}:PinholeProjection")[0], (3, 3)).T
    np.testing.assert_allclose(projection, [[100, 0, 80.25], [0, 100, 45.25], [0, 0, 1]])
    assert column(path, f"{FRONT}:Resolution")[0] == [[160, 90]]
    blob = column(path, f"{FRONT}/picture:Blob")[0][0]
    assert cv2.imdecode(np.array(blob, np.uint8), cv2.IMREAD_COLOR).shape == (90, 160, 3)


def test_classes_have_their_names_and_colours(drive: Path) -> None:
    (context,) = column(drive, "/world:AnnotationContext")[0]
    infos = [entry["class_description"]["info"] for entry in context]
    assert [info["label"] for info in infos] == list(NUSCENES.class_names)
    assert [entry["class_id"] for entry in context] == [info["id"] for info in infos]
    assert infos[0]["color"] == int.from_bytes((*CLASS_COLORS["car"], 255), "big")


def test_weak_objects_and_dates(tmp_path: Path) -> None:
    path = tmp_path / "dated.rrd"
    record(path, replace(moment(), timestamp_s=1.6e9 + 0.25), score_threshold=0.5)
    assert column(path, "/world/vehicle/objects:Text") == [["car 0.75"]]
    (time,) = column(path, "time", "time")
    away = np.datetime64(time, "ns") - np.datetime64(1_600_000_000_250, "ms")
    assert abs(away) <= np.timedelta64(1, "us")


def test_names_with_blanks_and_signs(tmp_path: Path) -> None:
    whole = moment()
    name = "front. wide +1"
    camera = replace(whole.rig.cameras[0], name=name)
    odd = replace(
        whole,
        rig=replace(whole.rig, cameras=[camera]),
        pictures={name: whole.pictures["front"]},
        scene="",
    )
    path = tmp_path / "odd.rrd"
    record(path, odd)
    schema = rr.dataframe.load_recording(path).schema()
    pictures = [c.entity_path for c in schema.component_columns() if "/picture" in c.entity_path]
    unescaped = {entity.replace("\\", "") for entity in pictures}
    assert unescaped == {f"/world/vehicle/cameras/{name}/picture"}
    assert list(tmp_path.iterdir()) == [path]


def test_memory_does_not_grow(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    pictures = {
        name: noise.integers(0, 256, (height, width, 3), np.uint8)
        for name, (width, height) in SIZES.items()
    }
    path, used = tmp_path / "long.rrd", []
    with rerun_recording(path) as recording:
        for number in range(160):
            recording.write(replace(moment(number), pictures=pictures), found(number))
            used.append(resident_bytes())
    assert path.stat().st_size > 15e6
    assert max(used) - used[60] < 5e6


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_the_way_has_at_most_so_many_places() -> None:
    from streampetr_vit.visualization.rerun_content import Way

    way = Way(most=100)
    for metres in np.arange(0, 1000, 0.25):
        way.add(np.array([metres, 0.0, 0.0]))
    line = way.line()
    assert 50 <= len(line) <= 100
    assert line[0, 0] == 0 and line[-1, 0] > 980
    assert np.diff(line[:, 0]).min() > 0


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_leaves_no_file_and_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "drive.rrd"
    with pytest.raises(OutputError, match="drive.rrd could not be written as a whole: free some"):
        record(path, *(moment(number) for number in range(30)))
    assert not list(tmp_path.iterdir())


def test_a_cut_file_is_not_complete(drive: Path, tmp_path: Path) -> None:
    content, path = drive.read_bytes(), tmp_path / "cut.rrd"
    for cut in (content, content[:-1], content[: len(content) // 2], content[:12], b""):
        path.write_bytes(cut)
        assert module._is_complete(path) == (cut is content)


def test_an_old_recording_stays_where_a_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "drive.rrd"
    path.write_text("old")
    bent = replace(moment(), pictures={"front": np.zeros((1, 1, 3), np.uint8)})
    with pytest.raises(InputError, match="picture of camera 'front' is uint8 of the shape"):
        record(path, moment(), bent)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_no_recording_can_be_made_of(tmp_path: Path) -> None:
    for name, message in (("a.mp4", "end its name with .rrd"), ("a.rrd", "got no moment")):
        with pytest.raises(InputError, match=message), rerun_recording(tmp_path / name):
            pass
    assert not list(tmp_path.iterdir())


def test_without_the_package_an_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened() -> None:
        with rerun_recording(tmp_path / "a.rrd"):
            raise AssertionError("opened")

    def missing(name: str) -> str:
        raise module.PackageNotFoundError(name)

    command = r"`pip install rerun-sdk==0\.23\.1 'pyarrow<26'`"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "rerun", None)
        with pytest.raises(InputError, match=f"rerun-sdk cannot be imported .*{command}"):
            opened()
    with monkeypatch.context() as patch:
        patch.setenv("RERUN", "off")
        with pytest.raises(InputError, match="RERUN=off turns recordings off: unset"):
            opened()
    with monkeypatch.context() as patch:
        patch.setattr(module, "version", lambda name: "0.40.0")
        with pytest.raises(InputError, match=f"is of version 0.40.0, and 0.23 .*{command}"):
            opened()
        patch.setattr(module, "version", missing)
        with pytest.raises(InputError, match=f"need the package rerun-sdk: {command}"):
            opened()


def test_poses_of_several_times(tmp_path: Path) -> None:
    later = Pose(
        VEHICLE.translation_m + VEHICLE.rotation().apply([2.0, 0, 0]), VEHICLE.rotation_wxyz
    )
    path = tmp_path / "later.rrd"
    record(path, replace(moment(), camera_vehicle_to_world={"front": later}))
    place = column(path, f"{FRONT}:Translation3D")[0]
    np.testing.assert_allclose(place, [[3.5, 0, 1.6]], atol=1e-6)
