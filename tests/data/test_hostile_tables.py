"""Tables, caches and pictures from strangers: each attack does nothing, and ends in one line."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import handmade_tables
import numpy as np
import pytest
from handmade_tables import HEIGHT, VERSION, WIDTH, Tables, row_by_token

from streampetr_vit.data.image_io import BadImageError, read_image
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes import cache
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.nuscenes.tables import TableError
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.errors import InputError, UserError

KEY_FRAME = "scene-0061-1-CAM_BACK-True"
HUGE = 10**400
DEEP = "[" * 100_000


def _load(root: Path, change: Callable[[Tables], object]) -> FrameRecords:
    tables = handmade_tables.make_tables()
    change(tables)
    return load_records(handmade_tables.write_tables(tables, root), VERSION)


def _set(table: str, token: str, field: str, value: object) -> Callable[[Tables], object]:
    return lambda tables: row_by_token(tables[table], token).update({field: value})


@pytest.mark.parametrize(
    "name",
    ["../secret.jpg", "samples/../../secret.jpg", "samples/..", "/etc/passwd", "~/secret.jpg"]
    + ["C:\\secret.jpg", "C:/secret.jpg", "samples\\CAM_BACK\\1.jpg", "http://host/1.jpg"]
    + ["file:///etc/passwd", "a\0b.jpg", "a\nb.jpg", "\x1b[2J.jpg", "x" * 5000, ["a.jpg"], 7, None],
)
def test_no_picture_outside_of_the_data_root(tmp_path: Path, name: object) -> None:
    cv2.imwrite(str(tmp_path / "secret.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(
        TableError, match=f"sample_data.json: field 'filename' of .*{KEY_FRAME}"
    ) as e:
        _load(tmp_path / "set", _set("sample_data", KEY_FRAME, "filename", name))
    assert str(e.value).isprintable() and len(str(e.value)) < 500


def test_links_to_other_disks_are_followed(tmp_path: Path) -> None:
    """Of the root and of a folder in it; a table cannot make one."""
    tables = handmade_tables.make_tables()
    root = handmade_tables.write_tables(tables, tmp_path / "set")
    handmade_tables.write_pictures(tables, tmp_path / "disk")
    os.symlink(tmp_path / "disk" / "samples", root / "samples")
    os.symlink(root, tmp_path / "link")
    mapper = NuScenesMapper(training=False, image_aug=ImageAugmentation((32, 80), (0.5, 0.5)))
    assert mapper(load_records(tmp_path / "link", VERSION)[0]).images.any()


def test_a_planted_cache_leads_to_no_picture_outside(tmp_path: Path) -> None:
    records = _load(tmp_path / "set", lambda tables: None)
    columns, metadata = cache.map_arrays(records.path)
    columns = {name: column.copy() for name, column in columns.items()}
    columns["camera_path"][:] = 0
    evil = np.frombuffer(b"../secret.jpg", np.uint8)
    columns["camera_path"][..., : len(evil)] = evil
    cache.write_arrays(records.path, columns, metadata)
    cv2.imwrite(str(tmp_path / "secret.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    record = load_records(tmp_path / "set", VERSION)[0]
    assert record.camera_paths[0] == "../secret.jpg"
    mapper = NuScenesMapper(training=False, image_aug=ImageAugmentation((32, 80), (0.5, 0.5)))
    with pytest.raises(
        InputError, match="'../secret.jpg' is not below the data root.*record cache"
    ):
        mapper(record)


def _other_key(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    metadata["key"] = "0" * 16


def _no_column(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    del columns["gt_rotation"]


def _other_type(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    columns["gt_boxes"] = columns["gt_boxes"].astype(np.float32)


def _other_shape(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    columns["camera_intrinsics"] = columns["camera_intrinsics"][:, :3]


def _no_axes(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    columns["scene_name"] = np.array(7, np.uint8)


def _other_offsets(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    columns["box_offsets"] = columns["box_offsets"][::-1]


def _falling_offsets(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    columns["box_offsets"][[1, 2]] = columns["box_offsets"][[2, 1]]


def _other_scenes(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    columns["scene_of_frame"] = columns["scene_of_frame"][::-1]


def _far_category(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    columns["gt_category"] = columns["gt_category"] + 1000


def _next_category(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    columns["gt_category"][0] = len(json.loads(metadata["categories"]))


def _odd_categories(columns: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    metadata["categories"] = DEEP


PLANTED = [
    _no_axes,
    _other_key,
    _no_column,
    _other_type,
    _other_shape,
    _other_offsets,
    _other_scenes,
]
PLANTED += [_falling_offsets, _far_category, _next_category, _odd_categories]


@pytest.mark.parametrize("change", PLANTED, ids=lambda change: change.__name__)
def test_a_planted_cache_is_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable
) -> None:
    records = _load(tmp_path, lambda tables: None)
    columns, metadata = cache.map_arrays(records.path)
    expected = columns["gt_boxes"].copy()
    columns = {name: column.copy() for name, column in columns.items()}
    change(columns, metadata)
    cache.write_arrays(records.path, columns, metadata)
    np.testing.assert_array_equal(load_records(tmp_path, VERSION).boxes("gt_boxes"), expected)
    assert "built again" in caplog.text


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"__metadata__": {"format_version": "4"}, "a": {"data_offsets": [0, 8]}}',
        b'{"__metadata__": {"format_version": "4"}, "a": 7}',
        b'{"__metadata__": {"format_version": "4"}, '
        b'"a": {"dtype": "F64", "shape": [1], "data_offsets": [-900, 8]}}',
        b'{"__metadata__": {"format_version": "4"}, '
        b'"a": {"dtype": "object", "shape": [1], "data_offsets": [0, 8]}}',
    ],
)
def test_headers_of_a_planted_cache(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "cache"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(cache.CacheError):
        cache.map_arrays(path)


@pytest.mark.parametrize(
    ("table", "token", "field"),
    [
        ("scene", "scene-0061-token", "name"),
        ("sample", "scene-0061-1", "token"),
        ("category", "category-animal", "name"),
        ("sensor", "sensor-RADAR_FRONT", "channel"),
    ],
)
@pytest.mark.parametrize(
    "name", ["a\nb", "a\0b", "\x1b]0;owned\x07", "\u202egpj", "x" * 5000, 7, [[]]]
)
def test_names_that_cannot_be_shown(
    tmp_path: Path, table: str, token: str, field: str, name: object
) -> None:
    with pytest.raises(TableError, match=f"{table}.json: field '{field}'.*printable") as error:
        _load(tmp_path, _set(table, token, field, name))
    assert str(error.value).isprintable() and len(str(error.value)) < 500


def test_names_that_are_only_odd_are_kept(tmp_path: Path) -> None:
    odd = "<script>alert(1)</script> ../../etc/x 雪"
    records = _load(tmp_path, _set("scene", "scene-0061-token", "name", odd))
    assert records.scene_names[0] == odd
    assert load_split(tmp_path, VERSION, [odd])[0].scene_name == odd


@pytest.mark.parametrize(
    ("table", "token", "field", "value"),
    [
        ("ego_pose", f"pose-{KEY_FRAME}", "translation", [HUGE, 0, 0]),
        ("ego_pose", f"pose-{KEY_FRAME}", "translation", [float("nan"), 0, 0]),
        ("ego_pose", f"pose-{KEY_FRAME}", "translation", [float("inf"), 0, 0]),
        ("ego_pose", f"pose-{KEY_FRAME}", "translation", [1e300, 0, 0]),
        ("ego_pose", f"pose-{KEY_FRAME}", "translation", {"x": 1}),
        ("ego_pose", f"pose-{KEY_FRAME}", "rotation", [2, 0, 0, 0]),
        ("ego_pose", f"pose-{KEY_FRAME}", "rotation", None),
        ("sample_data", KEY_FRAME, "width", 10**9),
        ("sample_data", KEY_FRAME, "width", -160),
        ("sample_data", KEY_FRAME, "is_key_frame", "false"),
        ("sample_data", KEY_FRAME, "timestamp", 0),
        ("calibrated_sensor", "scene-0061-CAM_BACK", "translation", [1500, 0, 1800]),  # mm
        ("sample_data", KEY_FRAME, "ego_pose_token", ["a"]),
        ("sample_data", KEY_FRAME, "calibrated_sensor_token", {}),
        ("sample", "scene-0061-1", "timestamp", 1e300),
        ("sample", "scene-0061-1", "timestamp", 1.5),
        ("sample", "scene-0061-1", "next", "scene-0103-3"),
        ("sample_annotation", "scene-0061-car-1", "token", []),
        ("sample_annotation", "scene-0061-car-1", "size", [1, 2, 1e9]),
        ("sample_annotation", "scene-0061-car-1", "size", [1, 2, float("nan")]),
        ("sample_annotation", "scene-0061-car-1", "num_lidar_pts", 1e300),
        ("sample_annotation", "scene-0061-car-1", "num_radar_pts", -9),
        ("sample_annotation", "scene-0061-car-1", "next", "scene-0061-car-0"),
        ("sample_annotation", "scene-0061-car-1", "prev", "scene-0061-dog-0"),
        ("calibrated_sensor", "scene-0061-CAM_BACK", "camera_intrinsic", np.eye(4).tolist()),
        ("calibrated_sensor", "scene-0061-CAM_BACK", "camera_intrinsic", np.zeros((3, 3)).tolist()),
        (
            "calibrated_sensor",
            "scene-0061-CAM_BACK",
            "camera_intrinsic",
            [[125, 0, 0], [0, 125, 0], [80, 45, 1]],  # transposed
        ),
        (
            "calibrated_sensor",
            "scene-0061-CAM_BACK",
            "camera_intrinsic",
            [[1250, 0, 805], [0, 1250, 470], [0, 0, 1]],  # of pictures of 1600x900
        ),
    ],
)
def test_values_of_the_wrong_kind(
    tmp_path: Path, table: str, token: str, field: str, value: object
) -> None:
    message = rf"{table}.json: .*{field}|sample_data.json: .*width and height"
    with pytest.raises(TableError, match=message) as error:
        _load(tmp_path, _set(table, token, field, value))
    assert str(error.value).isprintable() and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("token", "field", "value"),
    [
        ("scene-0061-CAM_BACK", "camera_intrinsic", [[125, 0, 159], [0, 125, 89], [0, 0, 1]]),
        ("scene-0061-RADAR_FRONT", "translation", [1500, 0, 0]),  # no sensor of the detector
    ],
)
def test_values_at_the_border_of_the_allowed(
    tmp_path: Path, token: str, field: str, value: list
) -> None:
    assert len(_load(tmp_path, _set("calibrated_sensor", token, field, value)))


@pytest.mark.parametrize(("factor", "advice"), [(1e-6, "1e\\+06"), (1e-3, "1000"), (1e3, "0.001")])
def test_times_in_other_units(tmp_path: Path, factor: float, advice: str) -> None:
    def scale(tables: Tables) -> None:
        for row in (*tables["sample"], *tables["sample_data"]):
            # From 0: nanoseconds since the epoch are refused one by one.
            row["timestamp"] = int((row["timestamp"] - 1_532_402_920_000_000) * factor)

    with pytest.raises(TableError, match=f"no microseconds.*Multiply all times .* by {advice}$"):
        _load(tmp_path, scale)


def test_a_pause_within_a_scene(tmp_path: Path) -> None:
    def pause(tables: Tables) -> None:
        for frame in (3, 4):
            row_by_token(tables["sample"], f"scene-0061-{frame}")["timestamp"] += 40_000_000

    with pytest.raises(TableError, match="'scene-0061-2' and 'scene-0061-3' .*begin another scene"):
        _load(tmp_path, pause)


def test_times_in_fractions_of_seconds(tmp_path: Path) -> None:
    def scale(tables: Tables) -> None:
        for row in tables["sample"]:
            row["timestamp"] *= 1e-6

    with pytest.raises(TableError, match="'timestamp' of .*whole number of microseconds; seconds"):
        _load(tmp_path, scale)


@pytest.mark.parametrize(
    "text",
    [DEEP, f'[{{"token": {DEEP}', '[{"token": ' + "9" * 5000 + "}]", "[1, 2]", '["x"]', "\0\0", ""]
    + ['[{"token": "a"} {"token": "b"}]', "\ufeff[]", "NaN"],
)
@pytest.mark.parametrize("table", ["scene", "sample_data"])
def test_files_that_are_no_tables(tmp_path: Path, table: str, text: str) -> None:
    root = handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    (root / VERSION / f"{table}.json").write_text(text)
    with pytest.raises(TableError, match=f"{table}.json") as error:
        load_records(root, VERSION)
    assert len(str(error.value)) < 500


def test_a_table_that_is_not_utf_8(tmp_path: Path) -> None:
    root = handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    (root / VERSION / "scene.json").write_bytes(b'[{"token": "\xff\xfe", "name": "a"}]')
    with pytest.raises(TableError, match="scene.json is not valid JSON"):
        load_records(root, VERSION)


@pytest.mark.parametrize(
    "text", [DEEP, "[]", "7", '{"a": "b"}', '{"a": [1]}', '{"a": [["x"]]}', "{", '{"a": null}']
)
def test_splits_of_the_wrong_form(tmp_path: Path, text: str) -> None:
    root = handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    (root / VERSION / "splits.json").write_text(text)
    with pytest.raises(InputError, match="splits.json"):
        load_split(root, VERSION, "a")


def _png(width: int, height: int) -> bytes:
    """A file of some bytes whose header promises any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


PICTURES = {
    "bomb": (_png(12_000, 12_000), "is 12000x12000 pixels, the table"),
    "larger bomb": (_png(60_000, 60_000), "60000x60000 pixels|none that can be decoded"),
    "larger": (_png(WIDTH * 2, HEIGHT), f"is {WIDTH * 2}x{HEIGHT} pixels, the table"),
    "empty": (b"", "none that can be decoded"),
    "text": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 160 90\n", "none that can be decoded"),
    "pickle": (b"\x80\x04\x95", "none that can be decoded"),
    "too large": (b"\xff\xd8" + bytes(3_000_000), "bytes, more than 160x90 pixels can need"),
}


@pytest.mark.parametrize(("data", "reason"), PICTURES.values(), ids=PICTURES)
def test_pictures_that_are_none(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(data)
    with pytest.raises(BadImageError, match=reason):
        read_image(path, (WIDTH, HEIGHT))


def test_a_bomb_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(_png(60_000, 60_000))
    monkeypatch.setattr(cv2, "imdecode", None)  # a call would fail
    with pytest.raises(BadImageError):
        read_image(path, (WIDTH, HEIGHT))


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.jpg")
    for path in (tmp_path / "1.jpg", tmp_path):
        with pytest.raises(BadImageError, match="is no regular file"):
            read_image(path, (WIDTH, HEIGHT))


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "tiff", "webp", "ppm"])
def test_pictures_of_other_formats_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"1.{ending}"
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 99, np.uint8))
    assert abs(read_image(path, (WIDTH, HEIGHT)).mean() - 99) < 3


def test_every_refusal_is_for_the_user() -> None:
    assert issubclass(TableError, UserError) and issubclass(BadImageError, UserError)


def test_tables_are_plain_json(tmp_path: Path) -> None:
    """A rig that asks for code is a text, and no category of the tables."""
    evil = "!!python/object/apply:os.system ['touch owned']"
    records = _load(tmp_path, _set("category", "category-animal", "name", evil))
    assert evil in records.category_names
    assert json.loads(records.metadata["categories"]) == records.category_names
    assert not Path("owned").exists()
