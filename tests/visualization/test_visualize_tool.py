"""Whole pictures, and the command-line tool that writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import visualize

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.evaluation.result_format import to_global_boxes, write_results
from streampetr_vit.structures import Detections
from streampetr_vit.visualization.colors import CLASS_COLORS
from streampetr_vit.visualization.frame_picture import (
    above_threshold,
    draw_record,
    visible_truth,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def _truth_as_detections(record: FrameRecord) -> Detections:
    truth = visible_truth(record, 40.0)
    scores = torch.linspace(0.9, 0.1, len(truth))
    return Detections(truth.boxes.nan_to_num().float(), scores, truth.labels)


def _pixels(picture: np.ndarray, name: str) -> int:
    """Pixels of a class's colour, outside the legend."""
    return int((picture[:-28] == CLASS_COLORS[name]).all(axis=2).sum())


def test_picture_of_a_record(tiny_nuscenes: Path) -> None:
    record = load_split(tiny_nuscenes, "v1.0-mini", "mini_val")[2]
    detections = _truth_as_detections(record)
    assert len(detections) > 3
    picture = draw_record(record, detections, score_threshold=0.0, range_m=40, panel_width=320)
    plain = draw_record(record, None, range_m=40, panel_width=320, with_truth=False)
    assert picture.shape == plain.shape and picture.dtype == np.uint8
    for label in set(detections.labels.tolist()):
        name = record.spec.class_names[label]
        assert _pixels(picture, name) > _pixels(plain, name), name
    nothing = draw_record(
        record,
        Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0).long()),
        range_m=40,
        panel_width=320,
        with_truth=False,
    )
    np.testing.assert_array_equal(nothing[26:], plain[26:])


def test_threshold_keeps_equal_scores() -> None:
    detections = Detections(
        torch.zeros(3, 9), torch.tensor([0.5, 0.25, 0.2]), torch.zeros(3).long()
    )
    assert len(above_threshold(detections, 0.25)) == 2


def test_tool_draws_pictures_and_a_video(tiny_nuscenes: Path, tmp_path: Path) -> None:
    records = load_split(tiny_nuscenes, "v1.0-mini", "mini_val")
    results = tmp_path / "results_nusc.json"
    write_results(
        results,
        [
            to_global_boxes(_truth_as_detections(r), r.lidar_to_ego, r.ego_to_global, r.token)
            for r in records
        ],
    )
    command = [sys.executable, str(REPOSITORY / "tools" / "visualize.py")]
    command += ["--dataset", str(tiny_nuscenes), "v1.0-mini", "mini_val"]
    command += ["--results", str(results), "--out", str(tmp_path / "out")]
    command += ["--frames", "2", "--width", "200", "--video"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert len(pictures) == 2
    assert cv2.imread(str(pictures[0])).std() > 10
    video = cv2.VideoCapture(str(tmp_path / "out" / "video.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 2


def test_tool_refuses_results_of_another_set(tiny_nuscenes: Path, tmp_path: Path) -> None:
    results = tmp_path / "other.json"
    results.write_text('{"meta": {}, "results": {"elsewhere": []}}')
    arguments = ["--dataset", str(tiny_nuscenes), "v1.0-mini", "mini_val"]
    arguments += ["--results", str(results), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="error: .*other.json holds none of the 6 samples"):
        visualize.main(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "a", "b", "--out", "x"], "ROOT VERSION SPLIT"),
        (["--out", "x"], "one of the arguments"),
        (
            ["--dataset", "a", "--out", "x", "--frames", "0"],
            "argument --frames: '0' must be a whole number, 1 or more",
        ),
    ],
)
def test_tool_arguments(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        visualize.parse_arguments(arguments)
    assert message in capsys.readouterr().err
