"""What is usual in a data set: where boxes are measured from, and how fast frames come."""

from __future__ import annotations

from pathlib import Path

import handmade_tables
import numpy as np
import pytest

from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.nuscenes.typical import usual_period_s, usual_reference

FIRST = next(iter(handmade_tables.SCENES))


def records_of(tables: handmade_tables.Tables, root: Path) -> FrameRecords:
    return load_records(handmade_tables.write_tables(tables, root), "v1.0-mini")


def move_lidar(tables: handmade_tables.Tables, scene: str, x_m: float) -> None:
    for row in tables["calibrated_sensor"]:
        if row["token"] == f"{scene}-LIDAR_TOP":
            row["translation"] = [x_m, 0.0, 1.84]


def test_the_reference_is_the_lidar_of_most_frames(tmp_path: Path) -> None:
    tables = handmade_tables.make_tables()
    counts = handmade_tables.SCENES
    most = max(counts, key=lambda name: counts[name])
    for number, scene in enumerate(counts):
        move_lidar(tables, scene, 1.0 + number)
    records = records_of(tables, tmp_path)
    x, y, z, *quaternion = usual_reference(records)
    assert (x, y, z) == (1.0 + list(counts).index(most), 0.0, 1.84)
    assert quaternion == records[0].lidar_to_ego.rotation_wxyz.tolist()
    # Of the chosen scenes alone; where none is more frequent, the first frame's.
    for number, scene in enumerate(counts):
        assert usual_reference(records.select_scenes([scene]))[0] == 1.0 + number


def test_of_equally_frequent_lidars_it_is_that_of_the_first_frame(
    handmade_records: FrameRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.zeros((4, 7))
    rows[:, 3], rows[:, 0] = 1.0, [2.0, 1.0, 1.0, 2.0]
    monkeypatch.setattr(FrameRecords, "lidar_to_ego", rows)
    assert usual_reference(handmade_records) == [2.0, 0, 0, 1.0, 0, 0, 0]


def test_the_period_is_the_median_within_scenes(tmp_path: Path) -> None:
    tables = handmade_tables.make_tables()
    assert usual_period_s(records_of(tables, tmp_path / "even")) == 0.5  # scenes: a minute apart
    for row in tables["sample"]:
        scene, _, frame = row["token"].rpartition("-")
        if scene == FIRST:  # 4 of 7 steps
            row["timestamp"] -= int(frame) * 100_000
    assert usual_period_s(records_of(tables, tmp_path / "odd")) == 0.4


def test_single_frames_have_no_period(
    handmade_records: FrameRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FrameRecords, "timestamps_us", np.array([0, 60_000_000]))
    records = handmade_records.select_scenes(list(handmade_tables.SCENES))
    records.scene_lengths = (1, 1)
    assert usual_period_s(records) is None
