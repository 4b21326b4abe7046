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
from scipy.spatial.transform import Rotation

from streampetr_vit.data.frame_geometry import FrameGeometry
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


def _with_copies(
    record: FrameRecord, boxes: GlobalBoxes, stretch: float, degrees: float
) -> GlobalBoxes:
    """With copies of the boxes that a camera sees, moved along its ray and turned around it."""
    geometry = FrameGeometry.of_record(record)
    to_image = (geometry.lidar_to_image @ geometry.global_to_lidar).numpy()
    homogeneous = np.pad(boxes.center_global_m, ((0, 0), (0, 1)), constant_values=1)
    pixels = homogeneous @ to_image.swapaxes(-1, -2)  # (N, n, 4)
    places = pixels[..., :2] / pixels[..., 2:3]
    seen = (pixels[..., 2] > 0) & ((places >= 0) & (places < record.image_sizes[:, None])).all(-1)
    rows, camera = np.flatnonzero(seen.any(0)), seen.argmax(0)[seen.any(0)]  # the first that sees
    eyes = np.linalg.inv(to_image)[camera, :3, 3]
    turn = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    moved = eyes + stretch * (boxes.center_global_m[rows] - eyes) @ turn.T
    kept = {
        name: np.concatenate((getattr(boxes, name), getattr(boxes, name)[rows]))
        for name in ("size_wlh_m", "rotation_wxyz", "velocity_global_mps", "scores")
    }
    names = {
        name: getattr(boxes, name) + tuple(getattr(boxes, name)[row] for row in rows)
        for name in ("class_names", "attribute_names")
    }
    centers = np.concatenate((boxes.center_global_m, moved))
    return replace(boxes, center_global_m=centers, **kept, **names).without_origin()


@pytest.fixture(scope="module")
def files(tiny_nuscenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ray_duplicates")
    records = load_split(tiny_nuscenes, "v1.0-mini", "mini_val")
    true = [_true_boxes(record) for record in records]
    contents = {"true": true}
    for name, move in {"nearer": (0.7, 0.0), "farther": (1.2, 0.0), "beside": (0.7, 3.0)}.items():
        contents[name] = [_with_copies(*pair, *move) for pair in zip(records, true, strict=True)]
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
    names = ("true", "nearer", "farther", "beside")
    words = _words(tiny_nuscenes, *(files[name] for name in names))
    ray_duplicates.main([*words, "--recall", "0.5", "1"])
    *lines, line = capsys.readouterr().out.splitlines()
    rows = json.loads(line)
    header, _, *printed = (re.split(r"  +", text.strip()) for text in lines[-2 - len(rows) :])
    assert header == list(ray_duplicates.COLUMNS) and len(printed) == len(rows) == 2 * len(names)
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    for name, (half, whole) in zip(names, pairs, strict=True):
        assert half["results"] == whole["results"] == str(files[name])
        assert 0.5 <= half["recall"] < whole["recall"] == 1
        assert half["threshold"] > whole["threshold"]
    (_, true), (_, nearer), (_, farther), (_, beside) = pairs
    assert true["false_positives"] == 0 and true["share_farther"] is None
    # Others are near their object, or are of one that is out of the metric's range.
    assert nearer["duplicates"] > 0.8 * nearer["false_positives"] and nearer["share_nearer"] == 1
    assert (
        farther["duplicates"] > 0.6 * farther["false_positives"] and farther["share_farther"] == 1
    )
    assert beside["false_positives"] > 100 and beside["duplicates"] < 5  # by chance


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("empty", [], r"empty\.json: recall 0\.3 is not reached: .* reach 0\.0000; ask for less"),
        ("true", ["--split", "mini_train"], r"true\.json cannot be scored: \d+ of \d+ samples"),
    ],
)
def test_what_cannot_be_counted(
    tiny_nuscenes: Path, files: dict[str, Path], name: str, words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message) as stop:
        ray_duplicates.main([*_words(tiny_nuscenes, files[name]), *words])
    assert len(str(stop.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["1.5", "0", "nan"])
def test_recalls_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ray_duplicates.main([*_words(Path("none"), Path("none.json")), "--recall", text])
    assert f"--recall: {text!r} must be a" in capsys.readouterr().err
