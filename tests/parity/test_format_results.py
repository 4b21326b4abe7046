"""Result records equal those of the reference formatter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import pytest
import torch

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.evaluation.result_format import to_global_boxes
from streampetr_vit.structures import Detections, Pose, boxes_from_bottom_center

TOLERANCE = 1e-6


def _records(case: dict[str, Any], config: dict[str, Any]) -> list[dict[str, Any]]:
    def pose(name: str) -> Pose:
        return Pose(
            torch.tensor(case[f"{name}_translation"], dtype=torch.float64).numpy(),
            torch.tensor(case[f"{name}_rotation_wxyz"], dtype=torch.float64).numpy(),
        )

    entries = {entry.name: entry for entry in NUSCENES.classes}
    ranges = config["class_range"]
    classes = [replace(entries[name], range_m=ranges[name]) for name in config["classes"]]
    # The file's boxes have z at the bottom face.
    boxes = boxes_from_bottom_center(case["boxes"])
    return to_global_boxes(
        Detections(boxes, case["scores"], case["labels"]),
        lidar_to_ego=pose("lidar2ego"),
        ego_to_global=pose("ego2global"),
        sample_token=case["sample_token"],
        spec=replace(NUSCENES, classes=classes),
    ).records()


@pytest.mark.parametrize("path", golden.files_of("format_results"), ids=lambda path: path.stem)
def test_records_equal_the_reference(path: Path) -> None:
    file = golden.load(path)
    assert len(file["inputs"]) == len(file["outputs"]) > 0
    for case, expected in zip(file["inputs"], file["outputs"], strict=True):
        actual = _records(case, file["config"])
        assert len(actual) == len(expected)
        for record, reference in zip(actual, expected, strict=True):
            assert record.keys() == reference.keys()
            for key, value in reference.items():
                if isinstance(value, str):
                    assert record[key] == value, key
                else:
                    assert record[key] == pytest.approx(value, abs=TOLERANCE), key
