"""Data sets whose classes, order of classes, cameras or lidar are not nuScenes'."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made_nuscenes import LIDAR_TO_EGO, VERSION, Layout, TrueSample, write_tables

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation import NuScenesEvaluator, evaluate_results
from streampetr_vit.evaluation.scoring import BIKE_RACK, Scoring
from streampetr_vit.structures import DatasetSpec, Detections, ObjectClass

VEHICLE = ObjectClass(
    "vehicle",
    ["vehicle.car", "vehicle.truck"],
    attributes=("vehicle.moving", "vehicle.parked"),
    scored_as="car",
)
PERSON = ObjectClass(
    "person",
    ["human.pedestrian.adult"],
    attributes=("walking", "waiting"),
    scored_as="pedestrian",
)
ANIMAL = ObjectClass("animal", ["animal"])
OWN = replace(NUSCENES, classes=(ANIMAL, VEHICLE, PERSON))


def _evaluate(
    root: Path,
    spec: DatasetSpec,
    samples: Sequence[TrueSample],
    detections: Sequence[Detections] | None = None,
    as_dicts: bool = False,
) -> dict[str, dict[str, float]]:
    """Metrics of some detections, by default of the true boxes; the files are in root/out."""
    dataset = {"root": root, "version": VERSION, "split": "val"}
    evaluator = NuScenesEvaluator(dataset, root / "out", spec=spec)
    evaluator.reset()
    found = [true.visible() for true in samples] if detections is None else detections
    for true, boxes in zip(samples, found, strict=True):
        sample = true.sample().as_dict() if as_dicts else true.sample()
        evaluator.process([sample], [{"detections": boxes}])
    return evaluator.evaluate()


def _file(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "out" / name).read_text())


def _values(root: Path, name: str, key: str) -> set[str]:
    """All values of a key in a results file."""
    return {record[key] for rows in _file(root, name)["results"].values() for record in rows}


def _summary(root: Path) -> dict[str, Any]:
    summary = _file(root, "metrics_summary.json")
    del summary["eval_time"]
    return summary


def _noisy(samples: Sequence[TrueSample]) -> list[Detections]:
    generator = torch.Generator().manual_seed(0)
    noisy = []
    for true in samples:
        boxes, labels = true.visible().boxes, true.visible().labels
        noise = torch.randn(boxes.shape, generator=generator) * 0.3
        noise[:, 3:6] = noise[:, 3:6].abs()
        scores = torch.rand(len(boxes), generator=generator)
        noisy.append(Detections(boxes + noise, scores, labels))
    return noisy


def test_own_classes_count_as_the_official_ones_that_they_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    truth = write_tables(tmp_path, layout=Layout(OWN))
    with caplog.at_level(logging.INFO):
        numbers = _evaluate(tmp_path, OWN, truth)["bbox3d"]
    aps = {name: value for name, value in numbers.items() if name.startswith("AP_")}
    assert aps == pytest.approx({"AP_car": 1, "AP_pedestrian": 1}, abs=1e-6)
    # No error of the person's attributes is defined: the metric counts 1 for that class.
    errors = {name: numbers[name] for name in ("mATE", "mASE", "mAOE", "mAVE", "mAAE")}
    assert errors == pytest.approx({**dict.fromkeys(errors, 0), "mAAE": 0.5}, abs=1e-5)
    assert set(_summary(tmp_path)["num_gt_boxes"]) == {"car", "pedestrian"}
    table = next(r.getMessage() for r in caplog.records if "Per-class results" in r.getMessage())
    rows = table.partition("Object Class")[2].splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["car", "pedestrian"]
    assert "does not know animal: left out of the scores" in caplog.text


def test_both_results_files_of_own_classes(tmp_path: Path) -> None:
    truth = write_tables(tmp_path, layout=Layout(OWN))
    _evaluate(tmp_path, OWN, truth, as_dicts=True)
    own, scored = "results_nusc.json", "results_scored.json"
    assert _values(tmp_path, own, "detection_name") == {"vehicle", "person", "animal"}
    assert _values(tmp_path, scored, "detection_name") == {"car", "pedestrian"}
    vehicles = {"vehicle.moving", "vehicle.parked", ""}
    assert _values(tmp_path, own, "attribute_name") == vehicles | {"walking", "waiting"}
    assert _values(tmp_path, scored, "attribute_name") == vehicles
    for name in (own, scored):
        assert set(_file(tmp_path, name)["results"]) == {true.token for true in truth}


def test_own_attributes_beside_official_ones_do_no_harm(tmp_path: Path) -> None:
    """The devkit takes one attribute of a true box at most, and only its own."""
    truth = write_tables(tmp_path, layout=Layout(OWN))
    path = tmp_path / VERSION / "sample_annotation.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["attribute_tokens"].insert(0, "walking")
    path.write_text(json.dumps(rows))
    _evaluate(tmp_path, OWN, truth)
    assert _summary(tmp_path)["label_tp_errors"]["car"]["attr_err"] == pytest.approx(0, abs=1e-6)


def test_own_classes_score_as_the_merged_official_ones(tmp_path: Path) -> None:
    """The AP of "vehicle" is that of cars and trucks together, not of cars alone."""
    truth = write_tables(tmp_path, layout=Layout(OWN))
    vehicles = OWN.class_names.index("vehicle")
    # In the hand-made tables categories take turns: every other vehicle is a truck.
    halves = []
    for true in truth:
        boxes = true.detections
        places = (boxes.labels == vehicles).nonzero()[:, 0]
        kept = torch.zeros(len(boxes), dtype=torch.bool)
        kept[places[::2]] = True
        kept &= true.has_points
        halves.append(Detections(boxes.boxes[kept], boxes.scores[kept], boxes.labels[kept]))
    numbers = _evaluate(tmp_path, OWN, truth, halves)["bbox3d"]
    found = sum(map(len, halves)) / _summary(tmp_path)["num_gt_boxes"]["car"]
    assert 0.4 < found < 0.6
    # Precision 1 up to that recall; the metric leaves out the first tenth.
    assert numbers["AP_car"] == pytest.approx((found - 0.1) / 0.9, abs=0.02)


def test_only_the_metrics_own_classes_need_no_other_names() -> None:
    assert Scoring.of(NUSCENES).is_official
    car, *others = NUSCENES.classes
    said = replace(NUSCENES, classes=(replace(car, scored_as="car"), *others))
    assert Scoring.of(said).is_official
    merged = replace(NUSCENES, classes=(replace(car, scored_as="truck"), *others))
    assert not Scoring.of(merged).is_official
    assert Scoring.of(merged).names["car"] == "truck"


@pytest.mark.parametrize("scored_as", ["cars", ""])
def test_unknown_official_class(tmp_path: Path, scored_as: str) -> None:
    spec = replace(OWN, classes=(replace(VEHICLE, scored_as=scored_as), PERSON))
    write_tables(tmp_path, frames=1, layout=Layout(spec))
    with pytest.raises(InputError, match=f"'vehicle': scored_as='{scored_as}' is no.* car, ") as e:
        _evaluate(tmp_path, spec, [])
    assert "\n" not in str(e.value)


def test_a_class_with_the_metrics_bicycle_racks_cannot_be_scored(tmp_path: Path) -> None:
    cycle = ObjectClass("cycle", ["vehicle.bicycle", BIKE_RACK], scored_as="bicycle")
    with pytest.raises(InputError, match="'cycle' takes static_object.bicycle_rack.*take that"):
        Scoring.of(replace(OWN, classes=(cycle,)))
    unscored = Scoring.of(replace(OWN, classes=(replace(cycle, scored_as=None), VEHICLE)))
    assert unscored.left_out == ("cycle",)


def test_the_file_with_own_names_is_refused_by_the_name_of_the_other_one(tmp_path: Path) -> None:
    truth = write_tables(tmp_path, layout=Layout(OWN))
    _evaluate(tmp_path, OWN, truth)
    records = load_split(tmp_path, VERSION, "val", spec=OWN)
    evaluate_results(tmp_path / "out" / "results_scored.json", records, tmp_path / "again")
    with pytest.raises(InputError, match=r"results_nusc.json cannot be scored.*results_scored"):
        evaluate_results(tmp_path / "out" / "results_nusc.json", records, tmp_path / "again")


def _changed(kind: str, results: dict[str, Any], token: str) -> None:
    """Changes the results of a sample."""
    box = results[token][0]
    if kind in box:
        box[kind] = {"size": [1.0, 2.0], "sample_token": "elsewhere"}.get(kind, "walker")
    elif kind == "501 boxes":
        results[token] = [box] * 501
    elif kind == "no list":
        results[token] = {"boxes": []}
    elif kind == "no box":
        results[token][0] = "car"
    elif kind == "no velocity":
        del box["velocity"]
    else:
        box["translation"] = None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("501 boxes", " has 501 boxes; keep the best 500 of each sample"),
        ("size", ": Size must have 3 elements"),
        (
            "detection_name",
            ": Unknown detection_name walker; the file must have .*, which has them",
        ),
        ("attribute_name", ": Unknown attribute_name walker; .*_scored.json, which has them"),
        ("sample_token", ": a box has sample_token 'elsewhere'; it must be the sample's"),
        ("no list", " has {'boxes': \\[\\]}; it must be a list of boxes"),
        ("no box", ": 'car' is no box; it must be an object"),
        ("no velocity", ": a box has no velocity; add it"),
        ("null", r": a box has a value of a wrong kind \(.*: {.*"),
    ],
)
def test_a_file_that_the_metric_refuses_is_one_line_with_the_sample(
    tmp_path: Path, kind: str, reason: str
) -> None:
    token = write_tables(tmp_path, frames=1)[-1].token
    records = load_split(tmp_path, VERSION, "val")
    results: dict[str, Any] = {one: [] for one in records.tokens}
    results[token] = [
        dict(
            sample_token=token,
            translation=[0.0, 0.0, 0.0],
            size=[1.0, 1.0, 1.0],
            rotation=[1.0, 0.0, 0.0, 0.0],
            velocity=[0.0, 0.0],
            detection_name="car",
            detection_score=0.5,
            attribute_name="",
        )
    ]
    _changed(kind, results, token)
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"meta": {}, "results": results}))
    with pytest.raises(InputError, match=rf"mine.json cannot be scored: sample '{token}'{reason}$"):
        evaluate_results(file, records, tmp_path / "out")


def test_a_file_of_other_samples_is_refused_before_the_devkit_reads_a_table(
    tmp_path: Path,
) -> None:
    write_tables(tmp_path, frames=3)
    records = load_split(tmp_path, VERSION, "val")
    first, *others = records.tokens
    for row in ("sample", "scene"):
        (tmp_path / VERSION / f"{row}.json").unlink()
    file = tmp_path / "mine.json"

    def message(tokens: Sequence[str], **more: Any) -> str:
        file.write_text(json.dumps({"results": dict.fromkeys(tokens, ()), **more}))
        with pytest.raises(InputError) as error:
            evaluate_results(file, records, tmp_path / "out")
        return str(error.value)

    assert 'cannot be scored: it has no "meta"; add one' in message(records.tokens)
    total = len(records)
    missing = message(others, meta={})
    assert f"mine.json cannot be scored: 1 of {total} samples (first: {first}) are" in missing
    assert "a list of boxes, it may be empty" in missing
    unknown = message([*records.tokens, "a", "b"], meta={})
    assert f"2 of {total + 2} samples (first: a) are not in the data set: take them out" in unknown


def test_nothing_that_the_metric_knows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = replace(OWN, classes=(ANIMAL, ObjectClass("tram", ["vehicle.tram"])))
    truth = write_tables(tmp_path, frames=1, layout=Layout(spec))
    assert _evaluate(tmp_path, spec, truth) == {}
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("does not know animal, tram" in text for text in warnings)
    assert any("no class is scored" in text for text in warnings)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results_nusc.json"]
    assert _values(tmp_path, "results_nusc.json", "detection_name") == {"animal", "tram"}


def test_order_of_the_classes_does_not_matter(tmp_path: Path) -> None:
    """The same boxes under other labels: names decide."""
    backwards = replace(NUSCENES, classes=NUSCENES.classes[::-1])
    roots = [tmp_path / "forwards", tmp_path / "backwards"]
    truth = write_tables(roots[0])
    write_tables(roots[1])
    detections = _noisy(truth)
    last = len(NUSCENES.classes) - 1
    turned = [replace(boxes, labels=last - boxes.labels) for boxes in detections]
    first = _evaluate(roots[0], NUSCENES, truth, detections)["bbox3d"]
    second = _evaluate(roots[1], backwards, truth, turned)["bbox3d"]
    assert first == second and 0.1 < first["mAP"] < 0.9
    assert _file(roots[0], "results_nusc.json") == _file(roots[1], "results_nusc.json")
    assert _summary(roots[0]) == _summary(roots[1])
    for root in roots:
        assert not (root / "out" / "results_scored.json").exists()


@pytest.mark.parametrize("lidar", [None, "LIDAR_ROOF"])
def test_tables_without_the_lidar_of_nuscenes(tmp_path: Path, lidar: str | None) -> None:
    """The camera nearest in time stands for a lidar that is not there."""
    pose = [*LIDAR_TO_EGO.translation_m, *LIDAR_TO_EGO.rotation_wxyz] if lidar is None else None
    cameras = ("left", "front", "right")
    spec = replace(NUSCENES, cameras=cameras, lidar=lidar, lidar_to_ego=pose)
    # So late that the vehicle is 24 m away: it decides which true boxes are in range.
    layout = Layout(spec, camera_delay_s={"left": 8.0, "right": 8.0})
    truth = write_tables(tmp_path / "with")
    write_tables(tmp_path / "without", layout=layout)
    records = load_split(tmp_path / "without", VERSION, "val", spec=spec)
    for record, true in zip(records, truth, strict=True):
        assert record.token == true.token
        assert (record.ego_to_global.matrix() == true.ego_to_global.matrix()).all()
        assert (record.lidar_to_ego.matrix() == true.lidar_to_ego.matrix()).all()
    detections = _noisy(truth)
    expected = _evaluate(tmp_path / "with", NUSCENES, truth, detections)
    assert _evaluate(tmp_path / "without", spec, truth, detections) == expected
    assert _summary(tmp_path / "with") == _summary(tmp_path / "without")
    counts = [_summary(tmp_path / "with")["num_gt_boxes"][n] for n in ("car", "barrier")]
    assert min(counts) > 0
