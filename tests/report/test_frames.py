"""Which frames a report draws, and which detections on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made_nuscenes import VERSION, Layout, write_tables

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.report import frames
from streampetr_vit.report.frames import balanced_threshold, draw_groups
from streampetr_vit.structures import Detections

SCENES = [f"scene-{k}" for k in range(7)]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> FrameRecords:
    """Seven scenes of five frames with two cars each."""
    root = tmp_path_factory.mktemp("frames")
    write_tables(root, SCENES, frames=5, boxes_per_class=2, layout=Layout(classes=("car",)))
    return load_split(root, VERSION, SCENES)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, float]]:
    """Token, number of detections and threshold of each frame, in the order of drawing."""
    calls = []

    def draw_record(record: FrameRecord, found: Detections, threshold: float, range_m: float):
        assert range_m == 30.0
        calls.append((record.token, len(found), threshold))
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(frames, "draw_record", draw_record)
    return calls


def _result(score: float) -> dict[str, Any]:
    return {
        "translation": [600.0, 1600.0, 1.0],
        "size": [2.0, 4.0, 1.5],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.0, 0.0],
        "detection_name": "car",
        "detection_score": score,
    }


def test_frames_from_the_middle_of_scenes_spread_over_the_set(
    records: FrameRecords, drawn: list[tuple[str, int, float]]
) -> None:
    in_a_row, alone = draw_groups(records, {}, 0.5, 30.0, 3, 3)
    scene = records.scene_names  # in the order of the tables' times
    assert [token for token, _, _ in drawn] == [
        *(f"{scene[0]}-{k}" for k in (1, 2, 3)),
        *(f"{scene[k]}-2" for k in (1, 3, 5)),
    ]
    times = ("+0.0", "+0.5", "+1.0")
    assert list(in_a_row.pictures) == [f"{scene[0]}, {time} s" for time in times]
    assert list(alone.pictures) == [scene[1], scene[3], scene[5]]
    assert (in_a_row.title, alone.title) == ("Consecutive frames", "Other scenes")
    for group in (in_a_row, alone):
        assert "score at least 0.50" in group.text
    assert {threshold for _, _, threshold in drawn} == {0.5}


def test_scenes_of_one_name_have_a_picture_each(
    tmp_path: Path, drawn: list[tuple[str, int, float]]
) -> None:
    layout = Layout(classes=("car",))
    write_tables(tmp_path, SCENES[:4], frames=2, boxes_per_class=1, layout=layout)
    path = tmp_path / VERSION / "scene.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, "name": "drive"} for row in rows]))
    records = load_split(tmp_path, VERSION, ["drive"])
    _, alone = draw_groups(records, {}, 0.5, 30.0, 1, 3)
    assert len(drawn) == 4 and len(alone.pictures) == 3
    tokens = [record.scene_token for record in records][::2]
    assert list(alone.pictures) == ["drive", f"drive ({tokens[2]})", f"drive ({tokens[3]})"]


def test_no_more_frames_and_scenes_than_there_are(
    records: FrameRecords, drawn: list[tuple[str, int, float]]
) -> None:
    one_scene = records.select_scenes(SCENES[:1])
    (group,) = draw_groups(one_scene, {}, 0.5, 30.0, 9, 3)
    assert [token for token, _, _ in drawn] == one_scene.tokens
    assert len(group.pictures) == 5
    assert draw_groups(records, {}, 0.5, 30.0, 0, 0) == []


def test_as_many_detections_as_true_boxes_in_the_drawn_frames(
    records: FrameRecords, drawn: list[tuple[str, int, float]]
) -> None:
    # Scores fall by 0.01 from box to box in the two drawn frames; the others have all 0.99.
    results = {token: [_result(0.99)] * 9 for token in records.tokens}
    scene = records.scene_names[0]
    shown = [f"{scene}-1", f"{scene}-2"]
    for row, token in enumerate(shown):
        results[token] = [_result(0.9 - 0.01 * (2 * k + row)) for k in range(5)]
    truth = [(records[records.tokens.index(t)].num_lidar_pts > 0).sum() for t in shown]
    draw_groups(records, results, None, 30.0, 2, 0)
    expected = 0.9 - 0.01 * sum(truth)
    assert drawn == [(token, 5, pytest.approx(expected)) for token in shown]


def test_balanced_threshold() -> None:
    scores = [0.9, 0.5, 0.1, 0.7]
    assert balanced_threshold(scores, 2) == 0.5
    assert balanced_threshold(scores, 4) == 0.0
    assert balanced_threshold([], 3) == 0.0
