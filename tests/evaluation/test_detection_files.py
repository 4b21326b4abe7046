"""Boxes of detection files in the order that trackers ask for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hand_made_nuscenes import SCENES, VERSION, write_tables

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.evaluation.detection_files import boxes_of_results
from streampetr_vit.evaluation.result_format import read_results, to_global_boxes, write_results


def test_any_order_of_a_file_gives_the_best_first(tmp_path: Path) -> None:
    truth = write_tables(tmp_path, scenes=SCENES[:1], frames=2, boxes_per_class=2)
    path = tmp_path / "results.json"
    rng = np.random.default_rng(1)
    write_results(
        path,
        [
            to_global_boxes(true.visible(), true.lidar_to_ego, true.ego_to_global, true.token)
            for true in truth
        ],
    )
    results = read_results(path)
    for boxes in results.values():
        for box in boxes:
            box["detection_score"] = float(rng.uniform())
    results = json.loads(json.dumps(dict(reversed(results.items()))))
    records = load_split(tmp_path, VERSION, "val")
    found = boxes_of_results(path, results, records)
    assert [boxes.sample_token for boxes in found] == records.tokens
    for boxes in found:
        ordered = sorted(results[boxes.sample_token], key=lambda box: -box["detection_score"])
        assert boxes.scores.tolist() == [box["detection_score"] for box in ordered]
        assert boxes.size_wlh_m.tolist() == [box["size"] for box in ordered]
        assert boxes.class_names == tuple(box["detection_name"] for box in ordered)
