"""Each kind of broken table is refused with the file, the field and the fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import handmade_tables
import pytest
from handmade_tables import Tables, row_by_token

from streampetr_vit.data.nuscenes.build_records import TABLES, load_records
from streampetr_vit.data.nuscenes.tables import TableError, TableFolder

Change = Callable[[Tables], object]


def _load(root: Path, change: Change) -> None:
    tables = handmade_tables.make_tables()
    change(tables)
    handmade_tables.write_tables(tables, root)
    load_records(root, handmade_tables.VERSION)


def test_missing_data_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist.*DETECTRON2_DATASETS"):
        load_records(tmp_path / "nowhere", "v1.0-mini")


def test_unknown_version_lists_what_exists(handmade_root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"v1.0-tiny.*\['v1.0-mini'\]"):
        load_records(handmade_root, "v1.0-tiny")


@pytest.mark.parametrize("name", TABLES)
def test_missing_table(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{name}\.json is missing"):
        _load(tmp_path, lambda tables: tables.pop(name))


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("scene", "name"),
        ("sample", "timestamp"),
        ("sample", "next"),
        ("sample_data", "is_key_frame"),
        ("sample_data", "width"),
        ("sample_data", "filename"),
        ("calibrated_sensor", "camera_intrinsic"),
        ("ego_pose", "rotation"),
        ("sensor", "channel"),
        ("sample_annotation", "num_lidar_pts"),
        ("sample_annotation", "prev"),
        ("instance", "category_token"),
        ("category", "name"),
    ],
)
def test_missing_field(tmp_path: Path, table: str, field: str) -> None:
    # In one record in the middle.
    with pytest.raises(TableError, match=rf"{table}\.json: record .* has no field '{field}'"):
        _load(tmp_path, lambda tables: tables[table][len(tables[table]) // 3].pop(field))


def test_timestamps_out_of_order(tmp_path: Path) -> None:
    def swap(tables: Tables) -> None:
        early, late = (row_by_token(tables["sample"], f"scene-0061-{n}") for n in (1, 2))
        early["timestamp"], late["timestamp"] = late["timestamp"], early["timestamp"]

    with pytest.raises(TableError, match="out of order: sample 'scene-0061-[01234]'"):
        _load(tmp_path, swap)


def test_equal_timestamps(tmp_path: Path) -> None:
    def repeat(tables: Tables) -> None:
        row = row_by_token(tables["sample"], "scene-0061-2")
        row["timestamp"] -= handmade_tables.PERIOD_US

    with pytest.raises(TableError, match="out of order"):
        _load(tmp_path, repeat)


def test_equal_timestamps_without_a_chain(tmp_path: Path) -> None:
    def repeat(tables: Tables) -> None:
        for row in tables["sample"]:
            row["next"] = ""
        row_by_token(tables["sample"], "scene-0061-2")["timestamp"] -= handmade_tables.PERIOD_US

    with pytest.raises(TableError, match="has the timestamp of another"):
        _load(tmp_path, repeat)


def test_missing_camera(tmp_path: Path) -> None:
    def remove(tables: Tables) -> None:
        rows = tables["sample_data"]
        rows.remove(row_by_token(rows, "scene-0061-2-CAM_BACK-True"))

    with pytest.raises(TableError, match="'scene-0061-2' .*no key frame of CAM_BACK"):
        _load(tmp_path, remove)


def test_two_key_frames_of_one_camera(tmp_path: Path) -> None:
    def add(tables: Tables) -> None:
        row_by_token(tables["sample_data"], "scene-0061-2-CAM_BACK-False")["is_key_frame"] = True

    with pytest.raises(TableError, match="two of one channel"):
        _load(tmp_path, add)


def _set(table: str, token: str, field: str, value: object) -> Change:
    return lambda tables: row_by_token(tables[table], token).update({field: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _set("calibrated_sensor", "scene-0061-CAM_BACK", "rotation", [1.0, 1.0, 0.0, 0.0]),
            "calibrated_sensor.json: .*'scene-0061-CAM_BACK'.*not orthonormal",
        ),
        (
            _set("ego_pose", "pose-scene-0061-1-LIDAR_TOP-True", "rotation", [0.0] * 4),
            "ego_pose.json: .*not orthonormal",
        ),
        (
            _set("calibrated_sensor", "scene-0061-CAM_BACK", "camera_intrinsic", []),
            r"camera_intrinsic.*'scene-0061-CAM_BACK'.*shape \(3, 3\)",
        ),
        (
            _set("sample_annotation", "scene-0061-car-1", "translation", [1.0, float("nan"), 0.0]),
            "sample_annotation.json: field 'translation' of record 'scene-0061-car-1'.*finite",
        ),
        (
            _set("sample_annotation", "scene-0061-car-1", "translation", [1.0, 2.0]),
            "field 'translation' of record 'scene-0061-car-1'",
        ),
        (
            _set("sample_annotation", "scene-0061-car-1", "size", [1.0, 0.0, 2.0]),
            "field 'size' of record 'scene-0061-car-1'.*positive",
        ),
        (
            _set("sample_data", "scene-0061-1-CAM_BACK-True", "height", 0),
            "sample_data.json.*'scene-0061-1'.*width and height",
        ),
        (
            _set("sample_data", "scene-0061-1-CAM_BACK-True", "timestamp", "soon"),
            "field 'timestamp' of record 'scene-0061-1-CAM_BACK-True' is 'soon'",
        ),
        (
            _set("sample_annotation", "scene-0061-car-1", "sample_token", "gone"),
            "sample_token 'gone' is not in the table sample",
        ),
        (
            _set("sample_annotation", "scene-0061-car-1", "next", "gone"),
            "next 'gone' is not in the table sample_annotation",
        ),
        (
            _set("sample_data", "scene-0061-1-CAM_BACK-True", "ego_pose_token", "gone"),
            "ego_pose.json: 1 ego poses .*'gone'",
        ),
        (
            _set("sample_data", "scene-0061-1-CAM_BACK-True", "calibrated_sensor_token", "gone"),
            "calibrated_sensor_token 'gone' is not in the table calibrated_sensor",
        ),
        (
            _set("sample", "scene-0061-1", "token", "scene-0061-2"),
            "token 'scene-0061-2' occurs more than once",
        ),
    ],
)
def test_bad_value(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(TableError, match=message):
        _load(tmp_path, change)


def test_truncated_table(tmp_path: Path) -> None:
    handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    path = tmp_path / handmade_tables.VERSION / "sample_data.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(TableError, match="sample_data.json is not valid JSON.*truncated"):
        load_records(tmp_path, handmade_tables.VERSION)


def test_a_pointer_in_place_of_a_table_is_named(tmp_path: Path) -> None:
    handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    path = tmp_path / handmade_tables.VERSION / "sample_data.json"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(TableError, match="sample_data.json is not a JSON list: it is a Git LFS p"):
        load_records(tmp_path, handmade_tables.VERSION)


def test_table_that_is_no_list(tmp_path: Path) -> None:
    handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    (tmp_path / handmade_tables.VERSION / "scene.json").write_text("{}")
    with pytest.raises(TableError, match="scene.json is not a JSON list"):
        load_records(tmp_path, handmade_tables.VERSION)


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("piece_bytes", [1, 7, 64, 1000, 10**6])
def test_pieces_of_any_size_hold_the_same_records(
    tmp_path: Path, indent: int | None, piece_bytes: int
) -> None:
    rows = [{"token": f"t{n}", "text": "é", "list": [n, [n]]} for n in range(99)]
    for row in rows[::9]:
        row.update({"text": 'a "}, {" trap, [é] \\', "nested": {"a": {}, "b": {}}})
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    (tmp_path / "scene.json").write_text("\n " + text + "\n", encoding="utf-8")
    pieces = list(TableFolder(tmp_path).pieces("scene", piece_bytes))
    assert [row for piece in pieces for row in piece] == rows
    if piece_bytes == 1000:
        assert len(pieces) > 1


def test_empty_table(tmp_path: Path) -> None:
    (tmp_path / "scene.json").write_text("[]")
    assert TableFolder(tmp_path).rows("scene") == []
