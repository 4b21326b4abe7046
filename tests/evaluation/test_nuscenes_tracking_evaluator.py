"""True tracks, and tracks with known faults, through the evaluator of tracks and the devkit."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.evaluation import print_csv_format
from hand_made_nuscenes import SCENES, VERSION, write_tables

from streampetr_vit.data.nuscenes.catalog import load_split, open_dataset
from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation import NuScenesTrackingEvaluator, evaluate_tracks
from streampetr_vit.structures import DatasetSpec, Detections, ObjectClass, Tracks
from streampetr_vit.tracking.classes import OFFICIAL_NAMES

SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL = SHARED / "real_nuscenes_tables"
MAPS = SHARED / "real_nuscenes" / "maps"
Change = Callable[[int, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracking")
    write_tables(folder, scenes=SCENES, frames=6, boxes_per_class=2)
    return folder


def _dataset(root: Path) -> dict[str, Any]:
    return {"root": root, "version": VERSION, "split": "val"}


def _truth(record: FrameRecord, ids: Change | None, number: int) -> dict[str, Any]:
    """The boxes that the metric counts, and their instances as ids."""
    kept = (record.gt_labels >= 0) & (record.num_lidar_pts + record.num_radar_pts > 0)
    boxes = torch.from_numpy(np.nan_to_num(record.gt_boxes[kept])).float()
    labels = torch.from_numpy(record.gt_labels[kept])
    numbers = record.instance[kept].astype(np.int64) + 1
    given = numbers if ids is None else ids(number, numbers)
    tracks = replace(Tracks.none(len(numbers)), ids=given, scores=np.ones(len(numbers)))
    return {"detections": Detections(boxes, torch.ones(len(boxes)), labels), "tracks": tracks}


def _run(
    dataset: dict[str, Any],
    out: Path,
    ids: Change | None = None,
    tracker: str = "lineage",
    spec: DatasetSpec | None = None,
) -> dict[str, dict[str, float]]:
    evaluator = NuScenesTrackingEvaluator(dataset, out, tracker=tracker, spec=spec)
    records = open_dataset(dataset, spec)
    evaluator.check(records.tokens)
    for number, record in enumerate(records):
        sample = {
            "sample_token": record.token,
            "lidar_to_ego": record.lidar_to_ego,
            "ego_to_global": record.ego_to_global,
        }
        evaluator.process([sample], [_truth(record, ids, number)])
    return evaluator.evaluate()


@pytest.fixture(scope="module")
def perfect(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    out = tmp_path_factory.mktemp("perfect")
    return out / "tracking", _run(_dataset(root), out)["tracking"]


def _assert_perfect(numbers: dict[str, float]) -> None:
    assert numbers["AMOTA"] == pytest.approx(1) and numbers["MOTA"] == pytest.approx(1)
    assert numbers["AMOTP"] == pytest.approx(0, abs=1e-3)
    assert numbers["IDS"] == numbers["FRAG"] == numbers["FP"] == numbers["FN"] == 0


def test_true_tracks_are_perfect(perfect: tuple[Path, dict[str, float]]) -> None:
    folder, numbers = perfect
    _assert_perfect(numbers)
    assert {f"AMOTA_{name}" for name in OFFICIAL_NAMES} <= set(numbers)
    assert all(type(v) is float and np.isfinite(v) for v in numbers.values())
    assert not any("-" in name for name in numbers)
    summary = json.loads((folder / "metrics_summary.json").read_text())
    assert summary["amota"] == numbers["AMOTA"] and summary["meta"]["use_camera"] is True
    assert set(json.loads((folder / "metrics_details.json").read_text())) == set(OFFICIAL_NAMES)


@pytest.mark.skipif(not (REAL.is_dir() and MAPS.is_dir()), reason="no real tables beside it")
def test_true_tracks_of_real_tables_are_perfect(tmp_path: Path) -> None:
    (tmp_path / "maps").symlink_to(MAPS)
    (tmp_path / "v1.0-mini").symlink_to(REAL / "v1.0-mini")
    dataset = {"root": tmp_path, "version": "v1.0-mini", "split": None}
    _assert_perfect(_run(dataset, tmp_path / "out")["tracking"])


def test_the_greedy_tracker_follows_true_boxes(root: Path, tmp_path: Path) -> None:
    _assert_perfect(_run(_dataset(root), tmp_path, tracker="greedy")["tracking"])


def test_swapped_ids_are_counted(root: Path, tmp_path: Path) -> None:
    cars = _first_cars(root)

    def swap(number: int, ids: np.ndarray) -> np.ndarray:
        if not 3 <= number < 6:
            return ids
        first, second = cars
        return np.where(ids == first, second, np.where(ids == second, first, ids))

    numbers = _run(_dataset(root), tmp_path, swap)["tracking"]
    assert numbers["IDS"] == numbers["IDS_car"] == 2
    assert numbers["AMOTA_car"] < 1 and numbers["AMOTA_bus"] == pytest.approx(1)


def _first_cars(root: Path) -> list[int]:
    record = load_split(root, VERSION, "val")[0]
    car = record.spec.class_names.index("car")
    seen = (record.gt_labels == car) & (record.num_lidar_pts + record.num_radar_pts > 0)
    return [int(number) + 1 for number in record.instance[seen][:2]]


def test_same_numbers_as_the_main_of_the_devkit(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.tracking.evaluate import TrackingEval

    root = tmp_path_factory.mktemp("one_scene")
    write_tables(root, scenes=SCENES[:1], frames=6, boxes_per_class=2)
    _run(_dataset(root), tmp_path)
    rng = np.random.default_rng(3)
    content = json.loads((tmp_path / "tracking" / "results_nusc.json").read_text())
    for boxes in content["results"].values():
        boxes[:] = [box for box in boxes if rng.random() > 0.15]
        for box in boxes:
            box["tracking_score"] = float(rng.uniform(0.2, 1))
            box["translation"][0] += float(rng.normal(0, 0.5))
    path = tmp_path / "noisy.json"
    path.write_text(json.dumps(content))
    ours = evaluate_tracks(path, load_split(root, VERSION, "val"), tmp_path / "ours")
    evaluation = TrackingEval(
        config_factory("tracking_nips_2019"), str(path), "val", str(tmp_path / "theirs"),
        VERSION, str(root), verbose=False,
    )  # fmt: skip
    theirs = evaluation.main(render_curves=False)
    assert 0 < ours["amota"] < 1
    for key in ("amota", "amotp", "mota", "ids", "frag", "tid", "lgd", "label_metrics"):
        assert ours[key] == theirs[key], key


def test_a_class_that_is_never_found_has_the_worst_values(
    root: Path, perfect: tuple[Path, dict[str, float]], tmp_path: Path,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    evaluator_file = json.loads((perfect[0] / "results_nusc.json").read_text())
    for token, boxes in evaluator_file["results"].items():
        kept = [box for box in boxes if box["tracking_name"] != "bus"]
        evaluator_file["results"][token] = kept
    path = tmp_path / "no_bus.json"
    path.write_text(json.dumps(evaluator_file))
    from streampetr_vit.evaluation.tracking_tables import printed_tracking_table, tracking_numbers

    summary = evaluate_tracks(path, load_split(root, VERSION, "val"), tmp_path)
    numbers = tracking_numbers(summary)
    assert numbers["AMOTA_bus"] == 0 and numbers["AMOTP_bus"] == 2
    assert all(np.isfinite(v) for v in numbers.values())
    assert "bus " in printed_tracking_table(summary)
    assert capfd.readouterr().out == ""
    with caplog.at_level(logging.INFO):
        print_csv_format({"tracking": numbers})


def _first(results: dict[str, Any]) -> list[dict[str, Any]]:
    return next(boxes for boxes in results.values() if boxes)


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: _first(content["results"])[0].update({key: value})


def _twice(content: dict[str, Any]) -> None:
    boxes = _first(content["results"])
    boxes.append(dict(boxes[0]))


def _two_classes(content: dict[str, Any]) -> None:
    box = list(content["results"].values())[1][0]
    box["tracking_name"] = "bus" if box["tracking_name"] == "car" else "car"


def _no_velocity(content: dict[str, Any]) -> None:
    del _first(content["results"])[0]["velocity"]


def _detections(content: dict[str, Any]) -> None:
    for boxes in content["results"].values():
        for box in boxes:
            box["detection_name"] = box.pop("tracking_name")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c["results"].popitem(), "1 of 24 samples .* are not in it"),
        (lambda c: c["results"].update(x=[]), "first: x.* are not in the data set"),
        (lambda c: c.pop("meta"), 'no "meta"'),
        (_set("tracking_score", float("nan")), "tracking_score nan"),
        (_set("tracking_score", float("inf")), "tracking_score inf"),
        (_set("tracking_score", "0.5"), "tracking_score '0.5'"),
        (_set("tracking_id", None), "tracking_id None"),
        (_set("tracking_id", 1.5), "tracking_id 1.5"),
        (_set("tracking_name", "barrier"), "tracking_name 'barrier'"),
        (_set("sample_token", "other"), "sample_token 'other'"),
        (_no_velocity, "velocity None"),
        (_twice, "two boxes have the id"),
        (
            lambda c: _first(c["results"]).extend(_first(c["results"])[:1] * 500),
            "keep the best 500",
        ),
        (_two_classes, "an id must keep its class"),
        (_detections, "boxes of the detection task"),
    ],
)
def test_a_faulty_file(
    root: Path, perfect: tuple[Path, dict[str, float]], tmp_path: Path,
    spoil: Callable[[dict[str, Any]], None], message: str,
) -> None:  # fmt: skip
    content = json.loads((perfect[0] / "results_nusc.json").read_text())
    spoil(content)
    path = tmp_path / "faulty.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as fault:
        evaluate_tracks(path, load_split(root, VERSION, "val"), tmp_path / "out")
    assert len(str(fault.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_memory_trackers_need_tracks_and_whole_scenes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='tracker="greedy"'):
        NuScenesTrackingEvaluator(_dataset(root), tmp_path, allow_padding=True)
    evaluator = NuScenesTrackingEvaluator(_dataset(root), tmp_path)
    record = load_split(root, VERSION, "val")[0]
    output = _truth(record, None, 0)
    del output["tracks"]
    sample = {
        "sample_token": record.token,
        "lidar_to_ego": record.lidar_to_ego,
        "ego_to_global": record.ego_to_global,
    }
    with pytest.raises(InputError, match="has no tracks"):
        evaluator.process([sample], [output])


def test_own_classes_are_scored_as_others(root: Path, tmp_path: Path) -> None:
    vehicle = ObjectClass("vehicle", ["vehicle.car", "vehicle.truck"], scored_as="car")
    spec = replace(NUSCENES, classes=(ObjectClass("animal", ["animal"]), vehicle))
    numbers = _run(_dataset(root), tmp_path, spec=spec)["tracking"]
    _assert_perfect(numbers)
    assert "AMOTA_car" in numbers and "AMOTA_truck" not in numbers


def test_a_class_without_true_boxes_is_named(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(root, copy)
    _hide_buses(copy / VERSION)
    with caplog.at_level(logging.INFO):
        numbers = _run(_dataset(copy), tmp_path / "out")["tracking"]
    _assert_perfect(numbers)
    assert not any("bus" in name for name in numbers)
    assert "No true boxes of bus" in caplog.text
    text = (tmp_path / "out" / "tracking" / "metrics_summary.json").read_text()
    assert "NaN" not in text and json.loads(text)["label_metrics"]["amota"]["bus"] is None


def _hide_buses(folder: Path) -> None:
    """Annotations without points are not scored."""
    rows = {name: json.loads((folder / f"{name}.json").read_text()) for name in
            ("category", "instance", "sample_annotation")}  # fmt: skip
    bus = {row["token"] for row in rows["category"] if row["name"].startswith("vehicle.bus")}
    buses = {row["token"] for row in rows["instance"] if row["category_token"] in bus}
    for row in rows["sample_annotation"]:
        if row["instance_token"] in buses:
            row["num_lidar_pts"] = row["num_radar_pts"] = 0
    (folder / "sample_annotation.json").write_text(json.dumps(rows["sample_annotation"]))


def test_a_missing_package_is_found_before(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("nuscenes.eval.tracking")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "motmetrics", None)
    with pytest.raises(InputError, match="extra tracking"):
        NuScenesTrackingEvaluator(_dataset(root), tmp_path).check()
