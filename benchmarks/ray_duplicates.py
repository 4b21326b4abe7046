#!/usr/bin/env python
"""How many false detections lie on the rays of objects that were found, at equal recall.

    python benchmarks/ray_duplicates.py RESULTS... --data ROOT --version V --split S [--recall 0.3]

Takes results files of the detection task with nuScenes' classes, and the boxes that its metric
scores. Prints a row for each file and recall, then the same as one line of JSON. docs/evaluate.md
has the definition.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from streampetr_vit.benchmark.measuring import as_text
from streampetr_vit.command_line import above_0, file_path
from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.evaluation.devkit_boxes import devkit_boxes
from streampetr_vit.evaluation.devkit_metrics import CONFIG_NAME
from streampetr_vit.evaluation.devkit_needs import check_devkit
from streampetr_vit.evaluation.devkit_tables import (
    devkit_refusals,
    devkit_tables,
    in_scope,
    true_boxes,
)
from streampetr_vit.evaluation.ray_duplicates import RaySample, in_pictures, ray_duplicates
from streampetr_vit.evaluation.scoring import Scoring

COLUMNS = {  # of the table -> of the JSON line
    "results": "results",
    "recall": "recall",
    "score": "threshold",
    "objects": "true_objects",
    "false": "false_positives",
    "false/object": "false_positives_per_object",
    "on rays": "duplicates",
    "on rays/object": "duplicates_per_object",
    "beside/object": "beside_per_object",
    "farther": "share_farther",
    "nearer": "share_nearer",
}


class Truth:
    """The true boxes of a split that the metric scores, and the cameras that saw them."""

    def __init__(self, records: FrameRecords) -> None:
        """Reads the tables.

        Raises:
            InputError: the split has no annotations, or the devkit cannot read it.
        """
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.detection.data_classes import DetectionBox

        if not records.has_annotations:
            raise InputError(f"{records.root / records.version} has no annotations to compare with")
        scoring = Scoring.of(records.spec)
        check_devkit(records, scoring)
        self._records = records
        self._tables = devkit_tables(records, scoring)
        self._ranges: Mapping[str, float] = config_factory(CONFIG_NAME).class_range
        self._boxes = self._scored(true_boxes(self._tables, records.tokens, DetectionBox))

    def samples(self, path: Path) -> list[RaySample]:
        """The samples of a results file.

        Raises:
            InputError: its first fault.
        """
        boxes, _ = devkit_boxes(path, self._records.tokens)
        with devkit_refusals(path, "benchmarks/ray_duplicates.py"):
            found = self._scored(boxes)
        return [self._sample(record, found[record.token]) for record in self._records]

    def _scored(self, boxes: Any) -> Any:
        return in_scope(self._tables, boxes, self._ranges)

    def _sample(self, record: FrameRecord, found: list[Any]) -> RaySample:
        lidar_to_world = record.ego_to_global.matrix() @ record.lidar_to_ego.matrix()
        camera_to_world = lidar_to_world @ record.camera_to_lidar  # (N, 4, 4)
        truth = self._boxes[record.token]
        true_m = self._centers(truth)
        return RaySample(
            found_m=self._centers(found)[:, :2],
            scores=np.array([box.detection_score for box in found], dtype=np.float64),
            found_labels=self._labels(found),
            true_m=true_m[:, :2],
            true_labels=self._labels(truth),
            cameras_m=camera_to_world[:, :2, 3],
            seen=in_pictures(true_m, camera_to_world, record.camera_intrinsics, record.image_sizes),
        )

    def _centers(self, boxes: list[Any]) -> np.ndarray:
        return np.array([box.translation for box in boxes], dtype=np.float64).reshape(-1, 3)

    def _labels(self, boxes: list[Any]) -> np.ndarray:
        names = list(self._ranges)
        return np.array([names.index(box.detection_name) for box in boxes], dtype=np.int64)


def recall_of(text: str) -> float:
    """The type of a recall: above 0, at most 1."""
    value = above_0(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at most 1")
    return value


@one_line_errors()
def main(arguments: list[str] | None = None) -> None:
    """Counts, and prints a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", nargs="+", type=file_path, help="JSON files of detections")
    parser.add_argument("--data", type=file_path, required=True, help="root of the data set")
    parser.add_argument("--version", required=True, help="v1.0-trainval, ...")
    parser.add_argument("--split", required=True, help="that the files are of")
    parser.add_argument(
        "--recall", nargs="+", type=recall_of, default=[0.3, 0.5], help="default: 0.3 0.5"
    )
    args = parser.parse_args(arguments)
    dataset = {"root": args.data, "version": args.version, "split": args.split}
    truth = Truth(open_dataset(dataset))
    rows = []
    for path in args.results:
        samples = truth.samples(path)
        try:
            counts = ray_duplicates(samples, args.recall)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        rows += [{"results": str(path), **count.row()} for count in counts]
    table = [{title: row[key] for title, key in COLUMNS.items()} for row in rows]
    print(as_text({"false detections on rays": table}))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
