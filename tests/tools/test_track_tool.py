"""tools/track.py from files to files and numbers."""

from __future__ import annotations

import json
import sys
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no results file at"),
        ("", "faulty.json"),
        ('{"meta": {}, "results": {"a": [', "faulty.json"),
        ("[1, 2]", "no nuScenes results file"),
        ('{"results": [1]}', "no nuScenes results file"),
        ('{"meta": {}, "results": {"other": []}}', "5 of 5 samples .* are not in it"),
    ],
)
def test_other_files(
    data: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    message: str,
) -> None:
    path = tmp_path / "faulty.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match=message) as fault:
        track.main(_words(data[0], path, tmp_path / "out"))
    assert len(str(fault.value).splitlines()) == 1
    assert capsys.readouterr().out == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("velocity", None, "velocity None"),
        ("translation", [float("nan"), 0.0, 0.0], "translation"),
        ("detection_score", "0.5", "detection_score '0.5'"),
        ("detection_score", True, "detection_score True"),
        ("detection_score", 1, None),
    ],
)
def test_values_of_other_kinds(
    data: tuple[Path, Path], tmp_path: Path, key: str, value: object, message: str | None
) -> None:
    content = json.loads(data[1].read_text())
    token, boxes = next(iter(content["results"].items()))
    boxes[0][key] = value
    path = tmp_path / "values.json"
    path.write_text(json.dumps(content))
    words = [*_words(data[0], path, tmp_path / "out"), "--no-scores"]
    if message is None:
        track.main(words)
        return
    with pytest.raises(SystemExit, match=message) as fault:
        track.main(words)
    assert token in str(fault.value) and not (tmp_path / "out").exists()


def test_more_boxes_than_a_sample_may_have(data: tuple[Path, Path], tmp_path: Path) -> None:
    content = json.loads(data[1].read_text())
    token, boxes = next(iter(content["results"].items()))
    boxes.extend(boxes[:1] * (501 - len(boxes)))
    path = tmp_path / "many.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=f"{token}.*keep the best 500"):
        track.main(_words(data[0], path, tmp_path / "out"))


def test_a_missing_package_is_told_before_the_tracking(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("nuscenes.eval.tracking")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "motmetrics", None)
    with pytest.raises(SystemExit, match="pip install"):
        track.main(_words(*data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    track.main([*_words(*data, tmp_path / "out"), "--no-scores"])
