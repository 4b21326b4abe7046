"""tools/track.py from files to files and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import track
from hand_made_nuscenes import SCENES, VERSION, write_tables

from streampetr_vit.evaluation.result_format import to_global_boxes, write_results


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("track_tool")
    truth = write_tables(root, scenes=SCENES[:1], frames=5, boxes_per_class=2)
    samples = [
        to_global_boxes(true.visible(), true.lidar_to_ego, true.ego_to_global, true.token)
        for true in truth
    ]
    write_results(root / "detections.json", samples)
    return root, root / "detections.json"


def _words(root: Path, results: Path, out: Path) -> list[str]:
    dataset = ["--dataset", str(root), VERSION, "val"]
    return [*dataset, "--results", str(results), "--out", str(out)]


def test_detections_are_tracked_and_tracks_scored(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    track.main(_words(*data, tmp_path))
    assert "AMOTA: 1.0000" in capsys.readouterr().out
    summary = json.loads((tmp_path / "metrics_summary.json").read_text())
    track.main(_words(data[0], tmp_path / "results_nusc.json", tmp_path / "again"))
    assert not (tmp_path / "again" / "results_nusc.json").exists()
    again = json.loads((tmp_path / "again" / "metrics_summary.json").read_text())
    assert again["label_metrics"] == summary["label_metrics"]


@pytest.mark.parametrize(("words", "found"), [([], False), (["--score-threshold", "0.1"], True)])
def test_the_options_reach_the_tracker(
    data: tuple[Path, Path], tmp_path: Path, words: list[str], found: bool
) -> None:
    content = json.loads(data[1].read_text())
    for boxes in content["results"].values():
        for box in boxes:
            box["detection_score"] = 0.2
    path = tmp_path / "weak.json"
    path.write_text(json.dumps(content))
    track.main([*_words(data[0], path, tmp_path / "out"), "--no-scores", *words])
    results = json.loads((tmp_path / "out" / "results_nusc.json").read_text())["results"]
    assert len(results) == 5 and any(results.values()) == found
    assert not (tmp_path / "out" / "metrics_summary.json").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("velocity", [float("nan")] * 2, "a tracker needs the velocity"),
        ("detection_score", float("nan"), "detection_score nan"),
        ("sample_token", "other", "sample_token 'other'"),
        ("detection_name", "cat", "detection_name 'cat'"),
    ],
)
def test_faulty_detections(
    data: tuple[Path, Path], tmp_path: Path, key: str, value: object, message: str
) -> None:
    content = json.loads(data[1].read_text())
    next(iter(content["results"].values()))[0][key] = value
    path = tmp_path / "faulty.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=message):
        track.main(_words(data[0], path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_nothing_done_in_silence(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    own = tmp_path / "results_nusc.json"
    own.write_bytes(data[1].read_bytes())
    with pytest.raises(SystemExit, match="would overwrite"):
        track.main(_words(data[0], own, tmp_path))
    track.main([*_words(data[0], own, tmp_path / "out"), "--no-scores"])
    tracks = tmp_path / "out" / "results_nusc.json"
    with pytest.raises(SystemExit, match="has tracks already"):
        track.main([*_words(data[0], tracks, tmp_path / "b"), "--no-scores"])
