"""Detections in the lidar frame <-> result records of the nuScenes detection task (global frame).

Everything after the boxes runs in float64. n is the number of boxes of one sample.
Source: released StreamPETR behaviour (frames, class ranges, attributes); the submission format of
the nuScenes detection task (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.evaluation.result_records import check_records
from streampetr_vit.evaluation.scoring import Scoring
from streampetr_vit.files import replacing
from streampetr_vit.json_files import read_json
from streampetr_vit.structures import DatasetSpec, Detections, GlobalBoxes, Pose

FloatArray = NDArray[np.float64]

RESULTS_FILE = "results_nusc.json"  # of an evaluation
BYTES_PER_BOX = 500  # of a results file: 17 numbers of up to 18 digits, a token, names
# use_external is True because the backbones are trained on other data first, as the reference does.
SUBMISSION_META = {
    "use_lidar": False,
    "use_camera": True,
    "use_radar": False,
    "use_map": False,
    "use_external": True,
}


def to_global_boxes(
    detections: Detections,
    lidar_to_ego: Pose,
    ego_to_global: Pose,
    sample_token: str,
    spec: DatasetSpec = NUSCENES,
) -> GlobalBoxes:
    """`GlobalBoxes.of` detections in the lidar frame, by default with the classes of nuScenes."""
    return GlobalBoxes.of(detections, lidar_to_ego, ego_to_global, sample_token, spec)


def write_results(
    path: str | Path, samples: Iterable[GlobalBoxes], scoring: Scoring | None = None
) -> None:
    """Writes a results file sample by sample; it is there when it is complete.

    Args:
        path: the JSON file; its folder is created.
        samples: the boxes of each sample; each sample once.
        scoring: writes only what is scored, under the metric's names; None writes all.
    """
    write_result_lines(path, (result_line(boxes, scoring) for boxes in samples))


def result_line(boxes: GlobalBoxes, scoring: Scoring | None = None) -> str:
    """What a results file says about a sample; `scoring` as in `write_results`."""
    records = boxes.records() if scoring is None else scoring.scored(boxes.records())
    return sample_line(boxes.sample_token, records)


def sample_line(token: str, records: Sequence[Mapping[str, Any]]) -> str:
    """The line of a results file with the records of a sample, of any task."""
    return f"{json.dumps(token)}: {json.dumps(records)}"


def write_result_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Writes a results file line by line; it is there when it is complete.

    Args:
        path: the JSON file; its folder is created.
        lines: of `sample_line`, one for each sample.
    """
    with replacing(path) as temporary, temporary.open("w") as file:
        file.write(f'{{"meta": {json.dumps(SUBMISSION_META)}, "results": {{')
        separator = "\n"
        for line in lines:
            file.write(separator + line)
            separator = ",\n"  # JSON allows no comma after the last one
        file.write("\n}}\n")


def read_results(path: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Reads a results file of any nuScenes detector.

    Args:
        path: a JSON file with the keys "meta" and "results".

    Returns:
        sample token -> its records.

    Raises:
        MissingFileError: no such file.
        InputError: not a results file.
    """
    return read_submission(path)[0]


def read_submission(path: str | Path) -> tuple[dict[str, list[dict[str, Any]]], Any]:
    """The same and "meta", whatever it is; None where the file has none."""
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no results file at {path}; run the evaluation first")
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise InputError(
            f'{path} is no nuScenes results file: expected {{"meta": ..., "results": '
            f"{{sample token: [boxes]}}}}"
        )
    return content["results"], content.get("meta")


def detections_from_records(
    records: Sequence[Mapping[str, Any]],
    lidar_to_ego: Pose,
    ego_to_global: Pose,
    class_names: Sequence[str] = NUSCENES.class_names,
) -> Detections:
    """The inverse of `to_global_boxes(...).records()`: records back in the lidar frame.

    Args:
        records: boxes of one sample.
        lidar_to_ego, ego_to_global: as there.
        class_names: names of the labels.

    Returns:
        The detections, sorted by descending score.

    Raises:
        InputError: a record has a field that no results file may have, or an unknown class.
    """
    check_records(records, class_names)
    if not records:
        return Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.long))

    def column(key: str) -> FloatArray:
        return np.array([record[key] for record in records], dtype=np.float64)

    global_to_lidar = np.linalg.inv(ego_to_global.matrix() @ lidar_to_ego.matrix())
    rotation, offset = global_to_lidar[:3, :3], global_to_lidar[:3, 3]
    # Points are rows: (n, 3) @ (3, 3) + (3,).
    center = column("translation") @ rotation.T + offset
    # The yaw is that of each box's x axis, seen along the lidar's z axis: exact for our own
    # records, and without the tilt of foreign ones.
    turns = Rotation.from_quat(column("rotation")[:, [1, 2, 3, 0]])  # wxyz -> xyzw
    heading = turns.apply([1.0, 0.0, 0.0]) @ rotation.T  # (n, 3)
    velocity = np.pad(column("velocity"), ((0, 0), (0, 1))) @ rotation.T  # (n, 2) -> (n, 3)
    boxes = np.column_stack(
        (
            center,
            column("size")[:, [1, 0, 2]],  # w, l, h -> l, w, h
            np.arctan2(heading[:, 1], heading[:, 0]),
            velocity[:, :2],
        )
    )  # (n, 9)
    scores = column("detection_score")
    order = np.argsort(-scores, kind="stable")  # equal scores keep the order of the file
    labels = np.array([class_names.index(record["detection_name"]) for record in records])
    return Detections(
        boxes=torch.from_numpy(boxes[order]).float(),
        scores=torch.from_numpy(scores[order]).float(),
        labels=torch.from_numpy(labels[order]).long(),
    )
