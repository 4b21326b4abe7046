"""The report: one file, everything in it, nothing beside it."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hand_made_nuscenes import IMAGE_SIZE, SCENES, VERSION, Layout, TrueSample, write_tables

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.evaluation.metric_tables import ERROR_NAMES
from streampetr_vit.evaluation.nuscenes_evaluator import NuScenesEvaluator
from streampetr_vit.report.curves import read_scalars
from streampetr_vit.report.from_run import report_from_run, synthetic_notes
from streampetr_vit.report.page import PictureGroup, ReportInput, render_report, write_report
from streampetr_vit.structures import DatasetSpec, Detections, ObjectClass

CLASSES = ("car", "pedestrian", "traffic_cone")


def _summary(mean_ap: float, cones: int = 20) -> dict[str, Any]:
    """A devkit summary of three classes."""
    aps = {name: {d: mean_ap for d in ("0.5", "1.0", "2.0", "4.0")} for name in CLASSES}
    errors = {name: dict.fromkeys(ERROR_NAMES.values(), 0.25) for name in CLASSES}
    errors["traffic_cone"].update(orient_err=math.nan, vel_err=math.nan, attr_err=math.nan)
    return {
        "label_aps": aps,
        "mean_dist_aps": dict.fromkeys(CLASSES, mean_ap),
        "mean_ap": mean_ap,
        "label_tp_errors": errors,
        "tp_errors": dict.fromkeys(ERROR_NAMES.values(), 0.25),
        "nd_score": 0.4321,
        "eval_time": 1.0,
        "num_gt_boxes": {"car": 100, "pedestrian": 50, "traffic_cone": cones},
    }


def _details() -> dict[str, Any]:
    recall = np.linspace(0, 1, 101).tolist()
    curve = {"recall": recall, "precision": [1 - 0.5 * r for r in recall]}
    return {f"{name}:{d}": curve for name in CLASSES for d in (0.5, 1.0, 2.0, 4.0)}


def _metrics_json(folder: Path) -> Path:
    path = folder / "metrics.json"
    rows = [
        {"iteration": i, "total_loss": 20 / (i + 1), "loss_cls": 1.0, "loss_bbox": 0.5, "lr": 1e-4}
        for i in range(0, 400, 10)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


class _Links(HTMLParser):
    """Collects what a browser would fetch, and checks that tags are closed in order."""

    VOID = {"meta", "img", "link", "br", "input"}

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An SVG element such as <line/>."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_full_report_is_self_contained(tmp_path: Path) -> None:
    image = np.full((40, 60, 3), (200, 30, 30), np.uint8)
    report = ReportInput(
        title="A run <with brackets>",
        subtitle="today",
        notes=["synthetic data, 25 m"],
        facts={"frames": "80"},
        runs={"memory on": _summary(0.7654), "memory off at test": _summary(0.1234)},
        details=_details(),
        scalars=read_scalars(_metrics_json(tmp_path)),
        picture_groups=[PictureGroup("Frames", "what is seen", {"a caption": image})],
        config_text="model: {depth: 3}",
        environment={"torch": "2.x"},
    )
    path = write_report(tmp_path / "output", report)
    assert path == tmp_path / "output" / "report.html"
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    text = path.read_text()
    page = _Links()
    page.feed(text)
    assert page.open == []
    assert len(page.fetched) == 1 and page.fetched[0].startswith("data:image/jpeg;base64,")
    assert not re.search(r"https?://|url\(|@import", text)
    for expected in ("0.765", "0.123", "0.432", "memory off at test", "synthetic data, 25 m"):
        assert expected in text, expected
    for expected in ("A run &lt;with brackets&gt;", "AP 0.5m", "a caption", "model: {depth: 3}"):
        assert expected in text, expected
    for title in ("Total loss", "Classification loss", "Box loss", "Learning rate"):
        assert f"<h4>{title}</h4>" in text
    assert text.count("<svg") == 3 + 4  # classes, curves
    assert "nan" not in text.lower().replace("nuscenes", "")


def test_parts_without_data_are_left_out() -> None:
    text = render_report(ReportInput("Only a title"))
    assert "Only a title" in text
    for absent in ("Detection metrics", "Training", "Configuration", "<img", "<svg"):
        assert absent not in text


def test_absent_classes_are_marked() -> None:
    text = render_report(ReportInput("t", runs={"run": _summary(0.5, cones=0)}))
    assert "No true boxes of traffic cone" in text
    assert '<tr class="absent">' in text


def test_errors_that_no_present_class_defines_are_a_dash() -> None:
    summary = _summary(0.5) | {"num_gt_boxes": {"car": 0, "pedestrian": 0, "traffic_cone": 9}}
    text = render_report(ReportInput("t", runs={"run": summary}))
    assert "mASE 0.250, mAOE \N{EN DASH}, mAVE \N{EN DASH}, mAAE \N{EN DASH}." in text
    assert text.count('<td class="none">\N{EN DASH}</td>') == 3


@pytest.fixture(scope="module")
def evaluated_run(tiny_nuscenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder after an evaluation of the true boxes."""
    import torch

    output_dir = tmp_path_factory.mktemp("run")
    dataset = {"root": tiny_nuscenes, "version": "v1.0-mini", "split": "mini_val"}
    evaluator = NuScenesEvaluator(dataset, output_dir / "inference")
    evaluator.reset()
    for record in load_split(tiny_nuscenes, "v1.0-mini", "mini_val"):
        kept = (record.gt_labels >= 0) & (record.num_lidar_pts + record.num_radar_pts > 0)
        boxes = torch.tensor(np.nan_to_num(record.gt_boxes[kept])).float()
        detections = Detections(
            boxes, torch.linspace(0.9, 0.5, len(boxes)), torch.tensor(record.gt_labels[kept])
        )
        true = TrueSample(record.token, record.lidar_to_ego, record.ego_to_global, detections)
        evaluator.process([true.sample()], [{"detections": detections}])
    evaluator.evaluate()
    (output_dir / "config.yaml").write_text("model: tiny\n")
    _metrics_json(output_dir)
    return output_dir


def test_true_boxes_of_the_synthetic_set_score_one(evaluated_run: Path) -> None:
    """The generated tables, through records and formatter, on the classes that are present."""
    summary = json.loads((evaluated_run / "inference" / "metrics_summary.json").read_text())
    for name, count in summary["num_gt_boxes"].items():
        assert summary["mean_dist_aps"][name] == pytest.approx(1.0 if count else 0.0, abs=1e-6)
        if count:
            errors = [e for e in summary["label_tp_errors"][name].values() if not math.isnan(e)]
            assert max(errors) < 1e-5, name


def test_report_from_an_output_folder(evaluated_run: Path, tiny_nuscenes: Path) -> None:
    dataset = {"root": tiny_nuscenes, "version": "v1.0-mini", "split": "mini_val"}
    report = report_from_run(
        evaluated_run,
        dataset,
        "Tiny",
        notes=["a note"],
        other_runs={"again": evaluated_run / "inference"},
        range_m=28.0,
    )
    assert list(report.runs) == ["memory on", "again"]
    assert report.facts["evaluated on"] == "6 frames of 1 scene"
    assert report.facts["trained for"] == "391 iterations"
    (group,) = report.picture_groups  # one scene: no others
    assert list(group.pictures) == [f"scene-0103, +{k / 2:.1f} s" for k in range(4)]
    assert "torch" in report.environment
    text = write_report(evaluated_run, report).read_text()
    assert text.count("data:image/jpeg;base64,") == 4
    assert "model: tiny" in text and "a note" in text
    assert "Synthetic scenes that end at 25 m" in text
    with pytest.raises(FileNotFoundError, match="run 'nowhere'"):
        report_from_run(
            evaluated_run, dataset, "Tiny", other_runs={"nowhere": evaluated_run / "none"}
        )


def test_report_of_own_classes(tmp_path: Path) -> None:
    """Metrics under official names, pictures with all classes of the data set."""
    spec = DatasetSpec(
        [
            ObjectClass("van", ["van"], scored_as="car"),
            ObjectClass("animal", ["animal"]),
        ],
        cameras=["front"],
    )
    truth = write_tables(tmp_path, SCENES[:1], frames=1, layout=Layout(spec))
    dataset = {"root": tmp_path, "version": VERSION, "split": SCENES[:1]}
    picture = tmp_path / load_split(tmp_path, VERSION, spec=spec)[0].camera_paths[0]
    picture.parent.mkdir(parents=True)
    cv2.imwrite(str(picture), np.zeros((*IMAGE_SIZE[::-1], 3), np.uint8))
    evaluator = NuScenesEvaluator(dataset, tmp_path / "inference", spec=spec)
    for true in truth:
        evaluator.process([true.sample()], [{"detections": true.visible()}])
    evaluator.evaluate()
    # A recipe that was made for the quick start, on these data.
    (tmp_path / "config.yaml").write_text("synthetic: {preset: quickstart}\ntrain: {seed: 3}\n")
    report = report_from_run(tmp_path, dataset, "Own", spec=spec)
    assert "seed: 3" in render_report(report) and "synthetic" not in render_report(report).lower()
    (group,) = report.picture_groups
    (picture,) = group.pictures.values()
    assert picture.std() > 10
    table = render_report(report).partition("Per class")[2].partition("</table>")[0]
    assert re.findall(r"</i>([a-z ]+)</td>", table) == ["car"]


def test_synthetic_data_are_known_by_the_mark_of_their_generator(tmp_path: Path) -> None:
    write_tables(tmp_path, SCENES[:1], frames=1)
    records = load_split(tmp_path, VERSION, SCENES[:1])
    assert synthetic_notes(records) == []
    mark = {"generator_version": 1, "config": {"range_m": 51.5}, "version": VERSION}
    expected = [
        "Synthetic scenes that end at 51.5 m: the numbers are not comparable with nuScenes."
    ]
    for content in (mark, {k: v for k, v in mark.items() if k != "version"}):
        (tmp_path / "synthetic.json").write_text(json.dumps(content))
        assert synthetic_notes(records) == expected
    # Real tables beside synthetic ones.
    (tmp_path / "synthetic.json").write_text(json.dumps({**mark, "version": "v1.0-mini"}))
    assert synthetic_notes(records) == []
    for broken in ("", "[]", "{}", '{"config": {"range_m": "far"}}'):
        (tmp_path / "synthetic.json").write_text(broken)
        assert synthetic_notes(records) == []
