"""The cache file: rebuilt whenever it must be, never half written, mapped and shared."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import handmade_tables
import numpy as np
import pytest

from streampetr_vit.data.nuscenes import build_records, cache
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.records import FrameRecords


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path / "set")


def _load(root: Path) -> FrameRecords:
    return load_records(root, handmade_tables.VERSION)


def _cache_files(root: Path) -> list[Path]:
    return sorted((root / ".streampetr_vit").glob("*.safetensors"))


def test_second_call_opens_the_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _load(root)
    monkeypatch.setattr(build_records, "build_cache", None)  # a call of it would fail
    second = _load(root)
    assert first.path == second.path
    assert first.path.name.startswith("v1.0-mini.")
    assert _cache_files(root) == [first.path]
    np.testing.assert_array_equal(first[3].gt_boxes, second[3].gt_boxes)


def test_rebuilt_when_a_table_changes(root: Path) -> None:
    before = _load(root)
    path = root / handmade_tables.VERSION / "sample_annotation.json"
    rows = json.loads(path.read_text())
    rows[0]["num_lidar_pts"] = 4  # same file size
    path.write_text(json.dumps(rows, indent=0))
    after = _load(root)
    assert after.path != before.path
    total = [sum(int(r.num_lidar_pts.sum()) for r in records) for records in (before, after)]
    assert total[1] == total[0] + 1


def test_large_tables_count_by_size_and_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_HASHED_BYTES", 0)
    files = [root / handmade_tables.VERSION / "sample.json"]
    before = cache.fingerprint(files)
    assert cache.fingerprint(files) == before
    os.utime(files[0], ns=(1, 1))
    assert cache.fingerprint(files) != before


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "bytes instead of"),
        (lambda data: data[:100], "truncated"),
        (lambda data: b"", "truncated"),
        (lambda data: data[:8] + b"x" * (len(data) - 8), "no readable header"),
        (
            lambda data: data.replace(b'"format_version":"4"', b'"format_version":"2"'),
            "format version 2, this program needs 4",
        ),
    ],
)
def test_damaged_file_is_rebuilt_and_logged(
    root: Path, caplog: pytest.LogCaptureFixture, damage, reason: str
) -> None:
    records = _load(root)
    good = records.path.read_bytes()
    assert damage(good) != good
    records.path.unlink()  # the mapped file of `records` stays as it is
    records.path.write_bytes(damage(good))
    with caplog.at_level(logging.WARNING):
        again = _load(root)
    assert reason in caplog.text and "built again" in caplog.text
    assert again.path == records.path and len(again.path.read_bytes()) == len(good)
    np.testing.assert_array_equal(again[3].gt_boxes, records[3].gt_boxes)


def test_other_format_version_has_another_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _load(root)
    monkeypatch.setattr(cache, "FORMAT_VERSION", cache.FORMAT_VERSION + 1)
    assert _load(root).path != before.path


def test_columns_of_the_older_format_are_made_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of format 1 has no rotations."""
    good = _load(root)
    path, expected = good.path, good[3].gt_rotation.copy()
    columns, metadata = cache.map_arrays(path)
    older = {name: column for name, column in columns.items() if name != "gt_rotation"}
    with monkeypatch.context() as patch:
        patch.setattr(cache, "FORMAT_VERSION", 1)
        cache.write_arrays(path, older, metadata)
    with caplog.at_level(logging.WARNING):
        again = _load(root)
    assert "format version 1" in caplog.text and "built again" in caplog.text
    np.testing.assert_array_equal(again[3].gt_rotation, expected)


def test_failed_write_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        _load(root)
    assert [p for p in (root / ".streampetr_vit").iterdir() if p.suffix != ".lock"] == []


def test_root_that_cannot_be_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".streampetr_vit").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    records = _load(root)
    assert records.path.parent == tmp_path / "home" / "streampetr_vit"
    assert records.root == root


def test_cache_dir_is_obeyed(root: Path, tmp_path: Path) -> None:
    records = load_records(root, handmade_tables.VERSION, cache_dir=tmp_path / "elsewhere")
    assert records.path.parent == tmp_path / "elsewhere"
    assert not (root / ".streampetr_vit").exists()


def test_arrays_are_read_only_views_of_the_file(root: Path) -> None:
    record = _load(root)[0]
    pose = record.ego_to_global.translation_m
    for array in (record.gt_boxes, record.gt_rotation, record.camera_to_lidar, pose):
        assert not array.flags.writeable
        assert not array.flags.owndata


def test_strings_and_empty_arrays_survive(tmp_path: Path) -> None:
    arrays = {
        "names": np.array([b"a", b"caf\xc3\xa9"]),
        "none": np.zeros((0, 9)),
        "flags": np.array([True, False]),
        "count": np.array([[1, 2]], np.int32),
    }
    cache.write_arrays(tmp_path / "file", arrays, {"note": "x"})
    read, metadata = cache.map_arrays(tmp_path / "file")
    assert cache.as_strings(read["names"]).tolist() == [b"a", b"caf\xc3\xa9"]
    assert read["none"].shape == (0, 9)
    assert read["flags"].tolist() == [True, False]
    assert read["count"].tolist() == [[1, 2]] and read["count"].dtype == np.int32
    assert metadata["note"] == "x"
