"""Results, metrics and names from strangers, in reports and pictures: shown as text, or refused."""

from __future__ import annotations

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import check_data
import cv2
import numpy as np
import pytest
import visualize
from hand_made_nuscenes import IMAGE_SIZE, SCENES, VERSION, Layout, write_tables

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.metric_tables import ERROR_NAMES
from streampetr_vit.evaluation.result_format import detections_from_records, read_results
from streampetr_vit.evaluation.summary_files import read_details, read_summary
from streampetr_vit.report.curves import read_scalars, training_charts
from streampetr_vit.report.frames import draw_groups
from streampetr_vit.report.page import PictureGroup, ReportInput, render_report
from streampetr_vit.structures import Pose
from streampetr_vit.visualization.drawing import draw_text

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
DEEP = "[" * 100_000
HUGE = 10**400
NAN = float("nan")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def _is_harmless(page: str) -> bool:
    """No script, nothing that is fetched, no handler of events."""
    tags = _Tags()
    tags.feed(page)
    return all(
        tag not in ("script", "iframe", "object", "link")
        and not any(name.startswith("on") or name == "href" for name in attrs)
        and (attrs.get("src") or "data:").startswith("data:")
        for tag, attrs in tags.found
    )


def _summary(name: str = "car") -> dict[str, Any]:
    errors = dict.fromkeys(ERROR_NAMES.values(), 0.25)
    return {
        "label_aps": {name: {"0.5": 0.1, "1.0": 0.2}},
        "mean_dist_aps": {name: 0.15},
        "mean_ap": 0.15,
        "label_tp_errors": {name: errors},
        "tp_errors": errors,
        "nd_score": 0.2,
        "eval_time": 1.0,
        "num_gt_boxes": {name: 3},
    }


def _record(**changes: Any) -> dict[str, Any]:
    values = {
        "sample_token": "a",
        "translation": [600.0, 1600.0, 1.0],
        "size": [2.0, 4.0, 1.5],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.0, 0.0],
        "detection_name": "car",
        "detection_score": 0.5,
        "attribute_name": "",
    }
    return {**values, **changes}


@pytest.fixture
def hostile_set(tmp_path: Path) -> FrameRecords:
    """Two scenes whose names are attacks, with pictures."""
    root = tmp_path / "set"
    write_tables(root, SCENES[:2], frames=2, boxes_per_class=1, layout=Layout(classes=("car",)))
    path = root / VERSION / "scene.json"
    names = iter([EVIL, "../../../" + "x" * 900])
    rows = [{**row, "name": next(names)} for row in json.loads(path.read_text())]
    path.write_text(json.dumps(rows))
    records = load_split(root, VERSION)
    for record in records:
        for camera in range(len(record.camera_paths)):
            record.picture(camera).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(record.picture(camera)), np.zeros((*IMAGE_SIZE[::-1], 3), np.uint8))
    return records


def test_names_reach_a_page_as_text(hostile_set: FrameRecords, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(_summary(EVIL)))
    (tmp_path / "metrics.json").write_text(
        "\n".join(
            json.dumps({"iteration": i, f"loss_{EVIL}": 1.0, "loss_b": 2.0}) for i in range(9)
        )
    )
    summary = read_summary(tmp_path / "summary.json")
    curve = {"recall": [0, 1], "precision": [1, 0]}
    report = ReportInput(
        title=EVIL,
        subtitle=EVIL,
        notes=[EVIL],
        facts={EVIL: EVIL},
        runs={EVIL: summary, "b": summary},
        details={f"{EVIL}:0.5": curve},
        scalars=read_scalars(tmp_path / "metrics.json"),
        picture_groups=[
            PictureGroup(EVIL, EVIL, {EVIL: np.zeros((8, 8, 3), np.uint8)}),
            *draw_groups(hostile_set, {}, None, 30.0),
        ],
        config_text=f"</pre>{EVIL}",
        environment={EVIL: EVIL},
    )
    page = render_report(report)
    assert page.count("&lt;script&gt;alert(1)") > 10
    assert _is_harmless(page)
    assert not _is_harmless(page.replace("&lt;", "<"))  # the check would see it


def test_pictures_of_such_scenes_stay_in_their_folder(
    hostile_set: FrameRecords, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tmp_path.rglob("*"))
    root = str(hostile_set.root)
    out = tmp_path / "a" / "b" / "c" / "out"
    arguments = ["--root", root, "--version", VERSION, "--input-size", "32x80"]
    assert check_data.main([*arguments, "--draw", "2", "--out", str(out)]) == 0
    made = {path for path in set(tmp_path.rglob("*")) - before if path.is_file()}
    assert len(made) == 4 and {path.parent for path in made} == {out}
    assert "\n../" not in capsys.readouterr().out


def test_visualise_writes_such_scenes_into_its_folder(
    hostile_set: FrameRecords, tmp_path: Path
) -> None:
    (hostile_set.root / VERSION / "splits.json").write_text(
        json.dumps({"all": hostile_set.scene_names})
    )
    out = tmp_path / "a" / "b" / "c" / "out"
    visualize.main(
        ["--dataset", str(hostile_set.root), VERSION, "all", "--out", str(out), "--width", "64"]
    )
    files = sorted(out.iterdir())
    assert len(files) == 4 and all(file.suffix == ".png" for file in files)
    elsewhere = {
        p for p in tmp_path.rglob("*.png") if p.parent not in (out, tmp_path / "set" / "maps")
    }
    assert not elsewhere


def test_text_that_no_font_has_is_drawn() -> None:
    for text in ("\x1b[2J\n\0雪", "x" * 100_000, EVIL):
        image = np.zeros((40, 300, 3), np.uint8)
        draw_text(image, text, (3, 20))
        assert image.any()


BAD_RECORDS = [
    {"translation": [1, 2]},
    {"translation": "abc"},
    {"translation": [1, 2, NAN]},
    {"translation": [NAN, NAN, NAN]},
    {"translation": [1, 2, math.inf]},
    {"translation": [1, 2, HUGE]},
    {"translation": [1, 2, 1e300]},
    {"translation": [1, 2, "3"]},
    {"translation": None},
    {"size": [0, 1, 1]},
    {"size": [1, -1, 1]},
    {"rotation": [0, 0, 0, 0]},
    {"rotation": [9, 0, 0, 0]},
    {"velocity": [1]},
    {"velocity": [NAN, 1]},
    {"detection_score": NAN},
    {"detection_score": "0.5"},
    {"detection_score": None},
    {"detection_score": HUGE},
    {"detection_name": EVIL},
    {"detection_name": ["car"]},
    {"detection_name": 0},
    {"detection_name": "Car"},
    {"detection_name": "x\x1b[2J" * 1000},
]


@pytest.mark.parametrize("change", BAD_RECORDS, ids=lambda c: str(c)[:40])
def test_records_that_no_results_file_may_have(change: dict[str, Any]) -> None:
    pose = Pose(np.zeros(3), np.array([1.0, 0, 0, 0]))
    (field,) = change
    with pytest.raises(InputError, match=f"a box of sample 'a' has {field}") as error:
        detections_from_records([_record(), _record(**change)], pose, pose)
    assert str(error.value).isprintable() and len(str(error.value)) < 500


@pytest.mark.parametrize(
    "records", [{"a": 1}, "abc", 7, None, [7], [[]], [None], [_record()] * 501]
)
def test_samples_that_no_results_file_may_have(records: Any) -> None:
    pose = Pose(np.zeros(3), np.array([1.0, 0, 0, 0]))
    with pytest.raises(InputError, match="results"):
        detections_from_records(records, pose, pose)


def test_velocities_may_be_unknown() -> None:
    pose = Pose(np.zeros(3), np.array([1.0, 0, 0, 0]))
    found = detections_from_records([_record(velocity=[NAN, NAN])], pose, pose)
    assert found.boxes[0, 7:].isnan().all() and found.boxes[0, :7].isfinite().all()


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        "",
        "7",
        "[]",
        '{"results": []}',
        '{"results": ' + "9" * 5000 + "}",
        "\0",
        '{"meta": 1}',
    ],
)
def test_results_files_of_the_wrong_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results_nusc.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"results_nusc.json is (not|no)"):
        read_results(path)
    path.write_bytes(b'{"results": {"\xff": []}}')
    with pytest.raises(InputError, match="not valid JSON"):
        read_results(path)


def test_samples_without_results_are_counted(
    tiny_nuscenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = load_split(tiny_nuscenes, "v1.0-mini", "mini_val").tokens[0]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": {}, "results": {token: [], EVIL: 7}}))
    arguments = ["--dataset", str(tiny_nuscenes), "v1.0-mini", "mini_val", "--results", str(path)]
    visualize.main([*arguments, "--out", str(tmp_path), "--frames", "1", "--width", "64"])
    assert "holds 1 of the 6 samples: the others are drawn without" in capsys.readouterr().err


def test_the_tool_ends_in_one_line(tiny_nuscenes: Path, tmp_path: Path) -> None:
    token = load_split(tiny_nuscenes, "v1.0-mini", "mini_val").tokens[0]
    path = tmp_path / "results.json"
    arguments = ["--dataset", str(tiny_nuscenes), "v1.0-mini", "mini_val", "--results", str(path)]
    for boxes in (7, [7], [_record(size=[1, 1, NAN])], [_record(detection_name=EVIL)]):
        path.write_text(json.dumps({"meta": {}, "results": {token: boxes}}))
        with pytest.raises(SystemExit) as stop:
            visualize.main([*arguments, "--out", str(tmp_path / "out")])
        assert re.match(r"\S+: error: .*results.*", str(stop.value))
        assert "\n" not in str(stop.value)
    assert not (tmp_path / "out").exists()
    assert sys.exc_info() == (None, None, None)


BAD_SUMMARIES = [
    DEEP,
    "[]",
    "{}",
    json.dumps(_summary() | {"nd_score": EVIL}),
    json.dumps(_summary() | {"num_gt_boxes": {"car": EVIL}}),
    json.dumps(_summary() | {"num_gt_boxes": {"car": HUGE, "bus": 1}, "mean_ap": HUGE}),
    json.dumps(_summary() | {"label_aps": {"car": {EVIL: 0.1}}}),
    json.dumps(_summary() | {"label_aps": {}}),
    json.dumps(_summary() | {"tp_errors": []}),
]


@pytest.mark.parametrize("text", BAD_SUMMARIES, ids=lambda text: text[:30])
def test_summaries_of_the_wrong_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics_summary.json"
    path.write_text(text)
    with pytest.raises(InputError, match="metrics_summary.json is not") as error:
        read_summary(path)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"bus:0.5": {"recall": [0], "precision": [0]}},
        {"car:x": {"recall": [0], "precision": [0]}},
        {"car:0.5": {"recall": [0], "precision": []}},
        {"car:0.5": {"recall": [EVIL], "precision": [0]}},
        {"car:0.5": {"recall": [NAN], "precision": [0]}},
        {"car:0.5": 7},
    ],
)
def test_details_of_the_wrong_form(tmp_path: Path, content: object) -> None:
    path = tmp_path / "metrics_details.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="metrics_details.json is not"):
        read_details(path, _summary())


def test_curves_of_the_wrong_form(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.json"
    lines = [DEEP, "[]", "7", '{"iteration": "x", "total_loss": 1}', '{"iteration": null}']
    lines += [f'{{"iteration": {HUGE}, "total_loss": 1}}', '{"iteration": -5, "total_loss": 1}']
    lines += [f'{{"iteration": {i}, "total_loss": {HUGE if i == 2 else i}}}' for i in range(4)]
    lines += ['{"iteration": 9, "total_loss": [1], "lr": "a"}', "\0\xff"]
    path.write_text("\n".join(lines), encoding="latin-1")
    scalars = read_scalars(path)
    assert scalars == {"total_loss": {0: 0, 1: 1, 3: 3}}
    assert len(training_charts(scalars)) == 1
    assert "left out 4 lines that are no JSON objects" in caplog.text
