"""The tracking metrics of a report, and files of trackers from strangers."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hand_made_nuscenes import IMAGE_SIZE, VERSION, Layout, write_tables
from made_tracks import made_tracks

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.evaluation.metric_tables import ERROR_NAMES
from streampetr_vit.evaluation.tracking_files import read_tracking_summary
from streampetr_vit.report.from_run import report_from_run
from streampetr_vit.report.page import ReportInput, render_report

NAN = math.nan
DASH = "\N{EN DASH}"
EVIL = "<script>alert(1)</script>"
METRICS = {"amota": 0.5, "amotp": 0.75, "mota": 0.25, "recall": 0.625, "ids": 3.0, "frag": 2.0}


def _content(factor: float = 1.0, **absent: Any) -> dict[str, Any]:
    """What the devkit serialises for a car, a bus, and classes with one value for everything."""
    values = METRICS | {"gt": 40.0, "motp": NAN}
    labels = {
        metric: {"car": factor * value, "bus": factor * value / 2} | absent
        for metric, value in values.items()
    }
    totals = {metric: factor * value for metric, value in values.items()}
    return {"label_metrics": labels, "eval_time": 1.0, "cfg": {}, **totals}


def _summary(folder: Path, content: Any) -> dict[str, Any]:
    path = folder / "metrics_summary.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_tracking_summary(path)


def _rows(page: str, heading: str) -> list[list[str]]:
    table = page.partition(heading)[2].partition("</table>")[0]
    rows = table.split("<tr>")[1:]
    return [re.findall(r"<t[dh][^>]*>(?:<[^>]*>)*([^<]*)", row) for row in rows]


def test_headline_numbers_and_classes(tmp_path: Path) -> None:
    summary = _summary(tmp_path, _content())
    page = render_report(ReportInput("t", tracking={"lineage": summary}))
    tiles = re.findall(r'tile(?: main)?"><span>(\w+)</span><b>([^<]+)</b><small>(\w+)', page)
    assert [tile[:2] for tile in tiles] == [
        ("AMOTA", "0.500"),
        ("AMOTP", "0.750"),
        ("MOTA", "0.250"),
        ("IDS", "3"),
        ("FRAG", "2"),
    ]
    heads, car, bus = _rows(page, "Per class")
    assert heads == ["class", "true boxes", "AMOTA", "AMOTP", "MOTA", "recall", "IDS", "FRAG"]
    assert car == ["car", "40", "0.500", "0.750", "0.250", "0.625", "3", "2"]
    assert bus == ["bus", "20", "0.250", "0.375", "0.125", "0.312", "2", "1"]
    for absent in ("side by side", "No true boxes", "nan"):
        assert absent not in page


def test_trackers_side_by_side(tmp_path: Path) -> None:
    first, second = (_summary(tmp_path, _content(factor)) for factor in (1.0, 0.5))
    del second["label_metrics"]["bus"]
    page = render_report(ReportInput("t", tracking={"lineage": first, EVIL: second}))
    assert EVIL not in page
    heads, one, two = _rows(page, "Trackers side by side")
    assert heads == ["tracker", "AMOTA", "AMOTP", "MOTA", "recall", "IDS", "FRAG"]
    assert one == ["lineage", "0.500", "0.750", "0.250", "0.625", "3", "2"]
    assert two[1:] == ["0.250", "0.375", "0.125", "0.312", "2", "1"]
    # Lower is better for distances and counts.
    best = re.findall(r'class="best">([^<]+)', page)
    assert best == ["0.500", "0.250", "0.625", "0.375", "2", "1"]
    heads, car, bus = _rows(page, "Per class")
    assert heads[2:5] == ["AMOTA", "AMOTA, &lt;script&gt;alert(1)&lt;/script&gt;", "AMOTP"]
    assert car[2:4] == ["0.500", "0.250"] and bus[2:4] == ["0.250", DASH]


@pytest.mark.parametrize("value", [NAN, None])
def test_classes_without_true_boxes_are_named(tmp_path: Path, value: float | None) -> None:
    summary = _summary(tmp_path, _content(truck=value, own_class=value))
    page = render_report(ReportInput("t", tracking={"lineage": summary}))
    assert "No true boxes of truck, own class in this set" in page
    assert [row[0] for row in _rows(page, "Per class")[1:]] == ["car", "bus"]


def test_a_class_of_which_nothing_was_found(tmp_path: Path) -> None:
    """The devkit's zeros for it would read as no true boxes."""
    summary = _summary(tmp_path, _content(truck=0.0))
    rows = _rows(render_report(ReportInput("t", tracking={"lineage": summary})), "Per class")
    assert rows[3] == ["truck", DASH, "0.000", "0.000", "0.000", "0.000", "0", "0"]


def test_counts_of_true_boxes_of_our_evaluator(tmp_path: Path) -> None:
    counts = {"car": 41, "bus": 20, "truck": 7, "trailer": 0}
    content = _content(truck=None, trailer=None) | {"num_gt_boxes": counts}
    page = render_report(ReportInput("t", tracking={"lineage": _summary(tmp_path, content)}))
    rows = _rows(page, "Per class")[1:]
    assert [row[:3] for row in rows] == [
        ["car", "41", "0.500"],
        ["bus", "20", "0.250"],
        ["truck", "7", DASH],
    ]
    assert "No true boxes of trailer in" in page and "nan" not in page


def test_a_set_without_any_true_box(tmp_path: Path) -> None:
    content = _content() | dict.fromkeys(METRICS, None)
    for values in content["label_metrics"].values():
        values.update(car=None, bus=None)
    page = render_report(ReportInput("t", tracking={"lineage": _summary(tmp_path, content)}))
    assert "No true boxes of car, bus" in page and "nan" not in page
    assert page.count(f"<b>{DASH}</b>") == 5


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        [],
        {},
        {"label_metrics": {}},
        _content() | {"amota": EVIL},
        _content() | {"label_metrics": _content()["label_metrics"] | {"ids": [1]}},
        _content(truck={}),
        _content() | {"num_gt_boxes": [7]},
        _content() | {"num_gt_boxes": {"car": EVIL}},
        _content(truck=EVIL),
        {key: value for key, value in _content().items() if key != "frag"},
        {"mean_dist_aps": {"car": 0.5}, "nd_score": 0.2, "mean_ap": 0.1},
    ],
    ids=lambda content: str(content)[:20],
)
def test_summaries_of_strangers(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError, match="metrics_summary.json is not") as error:
        _summary(tmp_path, content)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and the folder of a run with two evaluations of tracks."""
    root = tmp_path_factory.mktemp("run")
    write_tables(root, ["a", "b"], frames=5, boxes_per_class=2, layout=Layout(classes=("car",)))
    records = load_split(root, VERSION, ["a", "b"])
    picture = np.zeros((*IMAGE_SIZE[::-1], 3), np.uint8)
    for record in records:
        for camera in range(len(record.camera_paths)):
            record.picture(camera).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(record.picture(camera)), picture)
    folder = root / "output" / "inference"
    for name in ("tracking", "greedy"):
        (folder / name).mkdir(parents=True)
        (folder / name / "metrics_summary.json").write_text(json.dumps(_content()))
        results = {"meta": {}, "results": made_tracks(records)}
        (folder / name / "results_nusc.json").write_text(json.dumps(results))
    errors = dict.fromkeys(ERROR_NAMES.values(), 0.25)
    detection = {
        "label_aps": {"car": {"0.5": 0.1}},
        "mean_dist_aps": {"car": 0.1},
        "mean_ap": 0.1,
        "label_tp_errors": {"car": errors},
        "tp_errors": errors,
        "nd_score": 0.2,
        "num_gt_boxes": {"car": 3},
    }
    (folder / "metrics_summary.json").write_text(json.dumps(detection))
    empty = {record.token: [] for record in records}
    (folder / "results_nusc.json").write_text(json.dumps({"meta": {}, "results": empty}))
    return root


def _report(run: Path, **more: Any) -> ReportInput:
    dataset = {"root": run, "version": VERSION, "split": ["a", "b"]}
    return report_from_run(run / "output", dataset, "T", range_m=40.0, **more)


def test_report_with_tracking_is_the_one_without_and_more(run: Path) -> None:
    plain = _report(run)
    folders = {name: run / "output" / "inference" / name for name in ("tracking", "greedy")}
    report = _report(run, tracking=folders)
    assert list(report.tracking) == ["tracking", "greedy"]
    *others, tracks = report.picture_groups
    assert [group.title for group in others] == [group.title for group in plain.picture_groups]
    assert '"tracking" of any score' in tracks.text and len(tracks.pictures) == 2
    page, without = render_report(report), render_report(plain)
    assert "Tracking metrics" not in without and "Tracks from above" not in without
    sections = re.findall(r"<section><h2>Track.*?</section>", page, flags=re.DOTALL)
    assert len(sections) == 2 and not any(part in without for part in sections)
    rest = page
    for part in sections:
        rest = rest.replace(part, "")
    assert rest.replace(report.subtitle, "") == without.replace(plain.subtitle, "")
    assert len(page) - len(without) < 2 * 200_000 + 10_000


def test_files_that_are_missing_or_broken(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="tracker 'mine': no .*metrics_summary.json"):
        _report(run, tracking={"mine": tmp_path})
    shutil.copy(run / "output/inference/greedy/metrics_summary.json", tmp_path)
    with pytest.raises(MissingFileError, match="results_nusc.json; run the evaluation first"):
        _report(run, tracking={"mine": tmp_path})
    (tmp_path / "results_nusc.json").write_text('{"results": []}')
    with pytest.raises(InputError, match="results_nusc.json is no nuScenes results file"):
        _report(run, tracking={"mine": tmp_path})
    # Those of the detection task.
    shutil.copy(run / "output/inference/metrics_summary.json", tmp_path)
    with pytest.raises(InputError, match="metrics_summary.json is not what an evaluation writes"):
        _report(run, tracking={"mine": tmp_path})
