"""The official metric of perturbed ground truth, against what the perturbation predicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hand_made_nuscenes import SCENES, VERSION, TrueSample, write_tables

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.evaluation import evaluate_results
from streampetr_vit.evaluation.metric_tables import headline_numbers
from streampetr_vit.evaluation.result_format import GlobalBoxes, to_global_boxes, write_results
from streampetr_vit.structures import Detections

Perturb = Callable[[GlobalBoxes, np.random.Generator], GlobalBoxes]
EXACT = 1e-6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrueSample]]:
    root = tmp_path_factory.mktemp("perturbed")
    return root, write_tables(root, scenes=SCENES, frames=4, boxes_per_class=4)


def _score(
    dataset: tuple[Path, list[TrueSample]],
    perturb: Perturb | None = None,
    choose: Callable[[TrueSample], Detections] = TrueSample.visible,
    random_scores: bool = True,
) -> dict[str, float]:
    """Headline numbers of ground truth that went through our formatter and was then perturbed."""
    root, truth = dataset
    rng = np.random.default_rng(7)
    samples = []
    for true in truth:
        boxes = to_global_boxes(choose(true), true.lidar_to_ego, true.ego_to_global, true.token)
        if random_scores:
            # Equal scores would make every error that of the first match alone.
            boxes = replace(boxes, scores=rng.uniform(0.1, 1.0, size=len(boxes)))
        samples.append(perturb(boxes, rng) if perturb else boxes)
    results = root / "results.json"
    write_results(results, samples)
    records = load_split(root, VERSION, "val")
    return headline_numbers(evaluate_results(results, records, root / "out"))


def _expected_nds(numbers: dict[str, float]) -> float:
    errors = [numbers[name] for name in ("mATE", "mASE", "mAOE", "mAVE", "mAAE")]
    return (5 * numbers["mAP"] + sum(1 - min(1.0, error) for error in errors)) / 10


@pytest.mark.parametrize("random_scores", [False, True])
def test_ground_truth_is_perfect(
    dataset: tuple[Path, list[TrueSample]], random_scores: bool
) -> None:
    numbers = _score(dataset, random_scores=random_scores)
    assert numbers["mAP"] == pytest.approx(1, abs=EXACT)
    assert numbers["NDS"] == pytest.approx(1, abs=EXACT)


def test_ground_truth_of_the_record_store_is_perfect(
    dataset: tuple[Path, list[TrueSample]],
) -> None:
    """The whole way: tables, records, lidar boxes, formatter, devkit."""
    root, _ = dataset
    records = load_split(root, VERSION, "val")
    samples = []
    for record in records:
        seen = record.num_lidar_pts + record.num_radar_pts > 0
        boxes = torch.tensor(record.gt_boxes[seen]).float()
        detections = Detections(boxes, torch.ones(len(boxes)), torch.tensor(record.gt_labels[seen]))
        samples.append(
            to_global_boxes(detections, record.lidar_to_ego, record.ego_to_global, record.token)
        )
    write_results(root / "results.json", samples)
    numbers = headline_numbers(evaluate_results(root / "results.json", records, root / "out"))
    assert numbers["mAP"] == pytest.approx(1, abs=EXACT)
    assert numbers["NDS"] == pytest.approx(1, abs=EXACT)


def test_boxes_without_points_are_false_positives(
    dataset: tuple[Path, list[TrueSample]],
) -> None:
    numbers = _score(dataset, choose=lambda true: true.detections)
    # One in sixteen boxes is a false positive at a random rank.
    assert 0.90 < numbers["mAP"] < 0.98
    assert numbers["NDS"] == pytest.approx((numbers["mAP"] + 1) / 2, abs=EXACT)


def test_turned_boxes(dataset: tuple[Path, list[TrueSample]]) -> None:
    def turn(boxes: GlobalBoxes, rng: np.random.Generator) -> GlobalBoxes:
        # A turn by pi about +z: (w, x, y, z) * (0, 0, 0, 1).
        w, x, y, z = boxes.rotation_wxyz.T
        return replace(boxes, rotation_wxyz=np.stack((-z, y, -x, w), axis=1))

    numbers = _score(dataset, turn)
    # Nine classes have a heading; that of barriers has period pi.
    assert numbers["mAOE"] == pytest.approx(8 / 9 * math.pi, abs=EXACT)
    assert numbers["mAP"] == pytest.approx(1, abs=EXACT)
    assert numbers["NDS"] == pytest.approx(0.9, abs=EXACT)


def test_enlarged_boxes(dataset: tuple[Path, list[TrueSample]]) -> None:
    numbers = _score(dataset, lambda b, rng: replace(b, size_wlh_m=1.2 * b.size_wlh_m))
    assert numbers["mASE"] == pytest.approx(1 - 1 / 1.728, abs=EXACT)
    assert numbers["NDS"] == pytest.approx(1 - (1 - 1 / 1.728) / 10, abs=EXACT)


def test_zero_velocity(dataset: tuple[Path, list[TrueSample]]) -> None:
    numbers = _score(
        dataset, lambda b, rng: replace(b, velocity_global_mps=0 * b.velocity_global_mps)
    )
    assert numbers["mAVE"] > 1
    assert numbers["mAP"] == pytest.approx(1, abs=EXACT)
    assert numbers["NDS"] == pytest.approx(0.9, abs=EXACT)


def test_missing_attributes(dataset: tuple[Path, list[TrueSample]]) -> None:
    numbers = _score(dataset, lambda b, rng: replace(b, attribute_names=("",) * len(b)))
    assert numbers["mAAE"] == pytest.approx(1, abs=EXACT)
    assert numbers["NDS"] == pytest.approx(0.9, abs=EXACT)


def test_noisy_headings(dataset: tuple[Path, list[TrueSample]]) -> None:
    def turn(boxes: GlobalBoxes, rng: np.random.Generator) -> GlobalBoxes:
        half = rng.normal(0, 0.2, size=len(boxes)) / 2
        w, _, _, z = boxes.rotation_wxyz.T
        flat = np.zeros(len(boxes))
        cos, sin = np.cos(half), np.sin(half)
        turned = np.stack((w * cos - z * sin, flat, flat, w * sin + z * cos), axis=1)
        return replace(boxes, rotation_wxyz=turned)

    numbers = _score(dataset, turn)
    assert numbers["mAOE"] == pytest.approx(0.2 * math.sqrt(2 / math.pi), rel=0.12)
    assert numbers["NDS"] == pytest.approx(0.984, abs=0.003)


def test_noisy_velocities(dataset: tuple[Path, list[TrueSample]]) -> None:
    def shake(boxes: GlobalBoxes, rng: np.random.Generator) -> GlobalBoxes:
        noise = rng.normal(0, 0.5, size=(len(boxes), 2))
        return replace(boxes, velocity_global_mps=boxes.velocity_global_mps + noise)

    numbers = _score(dataset, shake)
    assert numbers["mAVE"] == pytest.approx(0.5 * math.sqrt(math.pi / 2), rel=0.12)
    assert numbers["NDS"] == pytest.approx(0.938, abs=0.01)


@pytest.mark.parametrize("sigma_m", [0.1, 0.3, 0.5, 1.0, 2.0])
def test_noisy_centers(dataset: tuple[Path, list[TrueSample]], sigma_m: float) -> None:
    def shake(boxes: GlobalBoxes, rng: np.random.Generator) -> GlobalBoxes:
        noise = rng.normal(0, sigma_m, size=boxes.center_global_m.shape)
        return replace(boxes, center_global_m=boxes.center_global_m + noise)

    numbers = _score(dataset, shake)
    # The distance is Rayleigh distributed, so precision and recall are both P(distance < limit).
    matched = [1 - math.exp(-(limit**2) / (2 * sigma_m**2)) for limit in (0.5, 1.0, 2.0, 4.0)]
    predicted = np.mean([(max(p - 0.1, 0) / 0.9) ** 2 for p in matched])
    assert numbers["mAP"] == pytest.approx(predicted, abs=0.04)
    mean_error = _mean_distance_of_matches(sigma_m, limit=2.0)
    assert numbers["mATE"] == pytest.approx(mean_error, rel=0.12)
    assert numbers["NDS"] == pytest.approx(_expected_nds(numbers), abs=EXACT)


def _mean_distance_of_matches(sigma: float, limit: float) -> float:
    """Mean of a Rayleigh variable given that it is below the limit."""
    distance = np.linspace(0, limit, 2001)
    density = distance / sigma**2 * np.exp(-(distance**2) / (2 * sigma**2))
    return float((distance * density).sum() / density.sum())


def _subset(boxes: GlobalBoxes, kept: np.ndarray) -> GlobalBoxes:
    names: dict[str, Any] = {
        field: tuple(np.array(getattr(boxes, field))[kept].tolist())
        for field in ("class_names", "attribute_names")
    }
    columns = ("center_global_m", "size_wlh_m", "rotation_wxyz", "velocity_global_mps", "scores")
    return replace(boxes, **names, **{field: getattr(boxes, field)[kept] for field in columns})


def test_dropped_boxes(dataset: tuple[Path, list[TrueSample]]) -> None:
    numbers = _score(dataset, lambda b, rng: _subset(b, rng.uniform(size=len(b)) > 0.3))
    # Precision 1 up to a recall of 0.7.
    assert numbers["mAP"] == pytest.approx((0.7 - 0.1) / 0.9, abs=0.06)
    assert numbers["NDS"] == pytest.approx((numbers["mAP"] + 1) / 2, abs=1e-5)


def test_added_false_positives(dataset: tuple[Path, list[TrueSample]]) -> None:
    def add(boxes: GlobalBoxes, rng: np.random.Generator) -> GlobalBoxes:
        twice = _subset(boxes, np.concatenate((np.arange(len(boxes)), np.arange(len(boxes)))))
        angle = rng.uniform(0, 2 * math.pi, size=len(boxes))
        twice.center_global_m[len(boxes) :, :2] += 8 * np.stack((np.cos(angle), np.sin(angle)), 1)
        twice.scores[len(boxes) :] /= 2
        return twice

    numbers = _score(dataset, add)
    assert 0.68 < numbers["mAP"] < 0.88
    assert numbers["NDS"] == pytest.approx((numbers["mAP"] + 1) / 2, abs=0.02)


def test_class_without_predictions(dataset: tuple[Path, list[TrueSample]]) -> None:
    def drop_trailers(boxes: GlobalBoxes, rng: np.random.Generator) -> GlobalBoxes:
        return _subset(boxes, np.array(boxes.class_names) != "trailer")

    numbers = _score(dataset, drop_trailers)
    assert numbers["mAP"] == pytest.approx(0.9, abs=EXACT)
    assert numbers["mATE"] == pytest.approx(0.1, abs=EXACT)
    assert numbers["mAOE"] == pytest.approx(1 / 9, abs=EXACT)
    assert numbers["mAVE"] == pytest.approx(1 / 8, abs=EXACT)
    assert numbers["NDS"] == pytest.approx(0.8939, abs=1e-4)
