"""Tracking results that are made of true boxes: a tracker whose mistakes are known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.tracking.classes import tracked_kinds

Boxes = dict[str, list[dict[str, Any]]]


def made_tracks(
    records: FrameRecords,
    seed: int = 0,
    noise_m: float = 0.0,
    dropped: float = 0.0,
    renamed: float = 0.0,
    false: int = 0,
) -> Boxes:
    """Sample token -> boxes of all true objects of tracked classes that have points.

    Args:
        records: frames with true boxes.
        seed: of the mistakes.
        noise_m: standard deviation of x and y.
        dropped: share of the boxes that are left out.
        renamed: how likely an object gets a new id from one frame to the next.
        false: boxes in each frame where nothing is, each with an id of its own.
    """
    rng = np.random.default_rng(seed)
    kinds = tracked_kinds(records.spec)
    numbers = itertools.count(1)
    ids: dict[tuple[str, int], str] = {}
    results: Boxes = {}
    for record in records:
        boxes = results.setdefault(record.token, [])
        for row in np.flatnonzero((record.gt_labels >= 0) & (record.num_lidar_pts > 0)):
            kind = kinds.get(record.spec.class_names[record.gt_labels[row]])
            if kind is None or rng.random() < dropped:
                continue
            name = (record.scene_token, int(record.instance[row]))
            if name not in ids or rng.random() < renamed:
                ids[name] = str(next(numbers))
            place = record.gt_boxes[row, :3] + [*rng.normal(0, noise_m, 2), 0.0]
            boxes.append(tracked_box(record, place, ids[name], kind))
        for number in range(false):
            place = np.array([*rng.uniform(-20, 20, 2), 50.0])
            boxes.append(tracked_box(record, place, f"f{record.token}{number}", "car", 0.1))
    return results


def tracked_box(
    record: FrameRecord, place_m: np.ndarray, name: str, kind: str, score: float = 0.5
) -> dict[str, Any]:
    """A box of the official format at a place in the lidar frame."""
    for pose in (record.lidar_to_ego, record.ego_to_global):
        place_m = pose.rotation().apply(place_m) + pose.translation_m
    return {
        "sample_token": record.token,
        "translation": place_m.tolist(),
        "size": [2.0, 4.0, 1.5],
        "rotation": [1.0, 0.0, 0.0, 0.0],
        "velocity": [0.0, 0.0],
        "tracking_id": name,
        "tracking_name": kind,
        "tracking_score": score,
    }
