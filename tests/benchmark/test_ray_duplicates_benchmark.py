"""benchmarks/ray_duplicates.py: rows of results files of a synthetic set."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray_duplicates
import torch

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.evaluation.result_format import to_global_boxes, write_results
from streampetr_vit.structures import Detections, GlobalBoxes


def _true_boxes(record: FrameRecord) -> GlobalBoxes:
    seen = (record.num_lidar_pts + record.num_radar_pts > 0) & (record.gt_labels >= 0)
    boxes = torch.tensor(record.gt_boxes[seen]).float()
    labels = torch.tensor(record.gt_labels[seen])
    detections = Detections(boxes, torch.linspace(0.9, 0.1, len(boxes)), labels)
    return to_global_boxes(detections, record.lidar_to_ego, record.ego_to_global, record.token)


def _with_copies(record: FrameRecord, boxes: GlobalBoxes, stretch: float) -> GlobalBoxes:
    """With a copy of each box, moved along the ray of the vehicle's front camera."""
    pose = record.ego_to_global.matrix() @ record.lidar_to_ego.matrix()
    camera = pose @ record.camera_to_lidar[record.spec.cameras.index("CAM_FRONT")]
    moved = camera[:3, 3] + stretch * (boxes.center_global_m - camera[:3, 3])
    moved[:, 2] = boxes.center_global_m[:, 2]
    doubled = {
        name: np.concatenate([getattr(boxes, name)] * 2)
        for name in ("size_wlh_m", "rotation_wxyz", "velocity_global_mps", "scores")
    }
    return replace(
        boxes,
        center_global_m=np.concatenate((boxes.center_global_m, moved)),
        class_names=boxes.class_names * 2,
        attribute_names=boxes.attribute_names * 2,
        **doubled,
    ).without_origin()


@pytest.fixture(scope="module")
def files(tiny_nuscenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ray_duplicates")
    records = load_split(tiny_nuscenes, "v1.0-mini", "mini_val")
    true = [_true_boxes(record) for record in records]
    nearer = [_with_copies(*pair, 0.7) for pair in zip(records, true, strict=True)]
    contents = {"true": true, "nearer": nearer}
    contents["empty"] = [replace(boxes, **_nothing(boxes)) for boxes in true]
    for name, boxes in contents.items():
        write_results(folder / f"{name}.json", boxes)
    return {name: folder / f"{name}.json" for name in contents}


def _nothing(boxes: GlobalBoxes) -> dict[str, Any]:
    columns = ("center_global_m", "size_wlh_m", "rotation_wxyz", "velocity_global_mps", "scores")
    none = {name: getattr(boxes, name)[:0] for name in columns}
    return {**none, "class_names": (), "attribute_names": ()}


def _words(root: Path, *paths: Path) -> list[str]:
    data = ["--data", str(root), "--version", "v1.0-mini", "--split", "mini_val"]
    return [*map(str, paths), *data]


def test_a_row_for_each_file_and_recall(
    tiny_nuscenes: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = _words(tiny_nuscenes, files["true"], files["nearer"])
    ray_duplicates.main([*words, "--recall", "0.5", "1"])
    *lines, line = capsys.readouterr().out.splitlines()
    header, _, *printed = (re.split(r"  +", row.strip()) for row in lines[-6:])
    rows = json.loads(line)
    assert header == list(ray_duplicates.COLUMNS) and len(printed) == len(rows) == 4
    assert [Path(row["results"]).stem for row in rows] == ["true", "true", "nearer", "nearer"]
    for half, whole in (rows[:2], rows[2:]):
        assert 0.5 <= half["recall"] < whole["recall"] == 1
        assert half["threshold"] > whole["threshold"] and half["matched"] < whole["matched"]
    for row in rows[:2]:
        assert row["false_positives"] == row["duplicates"] == 0 and row["share_farther"] is None
    whole = rows[3]
    assert whole["true_objects"] == rows[0]["true_objects"]
    assert 0 < whole["duplicates"] < whole["false_positives"]
    # Copies in front of what the front camera sees; a few lie behind other objects of the class.
    assert whole["share_nearer"] > 0.8 and whole["share_nearer"] + whole["share_farther"] == 1


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("empty", [], r"empty\.json: recall 0\.3 is not reached: .* reach 0\.0000; ask for less"),
        ("true", ["--split", "mini_train"], r"true\.json cannot be scored: \d+ of \d+ samples"),
        ("true", ["--recall", "1.5"], None),
        ("true", ["--recall", "0"], None),
    ],
)
def test_what_cannot_be_counted(
    tiny_nuscenes: Path,
    files: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: list[str],
    message: str | None,
) -> None:
    with pytest.raises(SystemExit, match=message) as stop:
        ray_duplicates.main([*_words(tiny_nuscenes, files[name]), *words])
    if message is None:
        assert stop.value.code == 2
        assert re.search(r"--recall: '[\d.]+' must be a", capsys.readouterr().err)
    else:
        assert len(str(stop.value).splitlines()) == 1
