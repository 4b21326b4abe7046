"""Records of the official tracking task, made of boxes and their tracks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.evaluation.tracking_format import tracking_line, tracking_records
from streampetr_vit.structures import DatasetSpec, GlobalBoxes, ObjectClass
from streampetr_vit.structures.tracks import NO_ID, Tracks


def boxes_of(names: list[str], seed: int = 0) -> GlobalBoxes:
    rng, count = np.random.default_rng(seed), len(names)
    return GlobalBoxes(
        sample_token="token",
        center_global_m=rng.normal(size=(count, 3)),
        size_wlh_m=rng.uniform(1, 2, (count, 3)),
        rotation_wxyz=rng.normal(size=(count, 4)),
        velocity_global_mps=rng.normal(size=(count, 2)),
        scores=np.linspace(0.9, 0.1, count),
        class_names=tuple(names),
        attribute_names=("",) * count,
    )


def tracks_of(ids: list[int]) -> Tracks:
    scores = np.linspace(0.8, 0.2, len(ids)).astype(np.float32).astype(np.float64)
    return replace(Tracks.none(len(ids)), ids=np.array(ids, np.int64), scores=scores)


def test_only_boxes_with_ids_of_the_seven_classes_are_there() -> None:
    names = ["car", "barrier", "car", "construction_vehicle", "pedestrian", "traffic_cone"]
    boxes, tracks = boxes_of(names), tracks_of([17, 3, NO_ID, 5, 2, 6])
    records = tracking_records(boxes, tracks, NUSCENES)
    assert [r["tracking_id"] for r in records] == ["17", "2"]
    assert [r["tracking_name"] for r in records] == ["car", "pedestrian"]
    second = records[1]
    assert type(second["tracking_score"]) is float
    assert second == {
        "sample_token": "token",
        "translation": boxes.center_global_m[4].tolist(),
        "size": boxes.size_wlh_m[4].tolist(),
        "rotation": boxes.rotation_wxyz[4].tolist(),
        "velocity": boxes.velocity_global_mps[4].tolist(),
        "tracking_id": "2",
        "tracking_name": "pedestrian",
        "tracking_score": tracks.scores[4],
    }
    assert json.loads(f"{{{tracking_line(boxes, tracks, NUSCENES)}}}") == {"token": records}


def test_the_best_500_are_there() -> None:
    names = ["barrier"] * 3 + ["car"] * 502
    tracks = tracks_of(list(range(1, 506)))
    records = tracking_records(boxes_of(names), tracks, NUSCENES)
    assert [r["tracking_id"] for r in records] == [str(number) for number in range(4, 504)]


@pytest.mark.parametrize("count", [0, 1])
def test_a_sample_without_tracks_is_there(count: int) -> None:
    boxes = boxes_of(["car"] * count)
    assert tracking_line(boxes, Tracks.none(count), NUSCENES) == '"token": []'


def test_own_classes_count_as_what_they_are_scored_as() -> None:
    spec = DatasetSpec(
        classes=[
            ObjectClass("tram", ["vehicle.tram"]),
            ObjectClass("van", ["vehicle.van"], scored_as="car"),
            ObjectClass("pylon", ["pylon"], scored_as="traffic_cone"),
        ],
        cameras=["front"],
    )
    records = tracking_records(boxes_of(["tram", "van", "pylon"]), tracks_of([1, 2, 3]), spec)
    assert [(r["tracking_id"], r["tracking_name"]) for r in records] == [("2", "car")]
