"""Detections in the lidar frame <-> result records of the nuScenes detection task (global frame).

Everything after the boxes runs in float64. n is the number of boxes of one sample.
Source: released StreamPETR behaviour (frames, class ranges, attributes); the submission format of
the nuScenes detection task (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from streampetr_vit.structures import DatasetSpec, Detections, Pose

FloatArray = NDArray[np.float64]

BYTES_PER_BOX = 500  # of a results file: 17 numbers of up to 18 digits, a token, names
# use_external is True because the backbones are trained on other data first, as the reference does.
SUBMISSION_META = {
    "use_lidar": False,
    "use_camera": True,
    "use_radar": False,
    "use_map": False,
    "use_external": True,
}


@dataclass(frozen=True)
class GlobalBoxes:
    """Boxes of one sample in the global frame.

    Attributes:
        sample_token: the sample.
        center_global_m: (n, 3) float64, gravity centre.
        size_wlh_m: (n, 3) float64, width, length, height: the order of nuScenes.
        rotation_wxyz: (n, 4) float64 quaternion.
        velocity_global_mps: (n, 2) float64.
        scores: (n,) float64.
        class_names: n names.
        attribute_names: n names, "" for classes without attributes.
    """

    # Columns: 6,000 samples with 300 boxes each are 200 MB so, and gigabytes as records.
    sample_token: str
    center_global_m: FloatArray
    size_wlh_m: FloatArray
    rotation_wxyz: FloatArray
    velocity_global_mps: FloatArray
    scores: FloatArray
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def records(self) -> list[dict[str, Any]]:
        """The boxes as dicts of plain Python values, the form of the results file."""
        columns = {
            "translation": self.center_global_m.tolist(),
            "size": self.size_wlh_m.tolist(),
            "rotation": self.rotation_wxyz.tolist(),
            "velocity": self.velocity_global_mps.tolist(),
            "detection_name": self.class_names,
            "detection_score": self.scores.tolist(),
            "attribute_name": self.attribute_names,
        }
        return [
            {"sample_token": self.sample_token, **dict(zip(columns, row, strict=True))}
            for row in zip(*columns.values(), strict=True)  # columns -> rows, one for each box
        ]


def to_global_boxes(
    detections: Detections,
    lidar_to_ego: Pose,
    ego_to_global: Pose,
    sample_token: str,
    spec: DatasetSpec = NUSCENES,
) -> GlobalBoxes:
    """Moves detections to the global frame, drops those out of range, names their attributes.

    Args:
        detections: in the lidar frame; any device.
        lidar_to_ego: pose of the lidar in the vehicle.
        ego_to_global: pose of the vehicle at the lidar's time.
        sample_token: the sample.
        spec: names, ranges and attributes of the classes.

    Returns:
        At most n boxes, in the same order.
    """
    boxes = detections.boxes.detach().cpu().double().numpy()
    labels = detections.labels.cpu().numpy()
    scores = detections.scores.detach().cpu().double().numpy()
    lidar_rotation, ego_rotation = lidar_to_ego.rotation(), ego_to_global.rotation()

    center_ego = lidar_rotation.apply(boxes[:, :3]) + lidar_to_ego.translation_m  # (n, 3)
    limits = np.array([entry.range_m for entry in spec.classes], dtype=np.float64)
    # In the vehicle's xy plane, from its origin: as the metric measures the range.
    kept = np.hypot(center_ego[:, 0], center_ego[:, 1]) <= limits[labels]
    boxes, labels, center_ego = boxes[kept], labels[kept], center_ego[kept]

    # (n, 2) -> (n, 3) -> (n, 2): files have no vertical velocity, tilted poses make one.
    lidar_to_global = ego_rotation * lidar_rotation
    velocity = lidar_to_global.apply(np.pad(boxes[:, 7:9], ((0, 0), (0, 1))))[:, :2]
    # (w, x, y, z) * (cos, 0, 0, sin), with the lidar's roll and pitch. Not by way of rotation
    # matrices: they lose the sign of a quaternion, and released result files keep it.
    x, y, z, w = lidar_to_global.as_quat()
    cos, sin = np.cos(boxes[:, 6] / 2), np.sin(boxes[:, 6] / 2)  # (n,)
    rotation = (w * cos - z * sin, x * cos + y * sin, y * cos - x * sin, z * cos + w * sin)
    speeds = np.hypot(velocity[:, 0], velocity[:, 1])
    return GlobalBoxes(
        sample_token=sample_token,
        center_global_m=ego_rotation.apply(center_ego) + ego_to_global.translation_m,
        size_wlh_m=boxes[:, [4, 3, 5]],  # l, w, h -> w, l, h
        rotation_wxyz=np.stack(rotation, axis=1),  # (n, 4)
        velocity_global_mps=velocity,
        scores=scores[kept],
        class_names=tuple(spec.class_names[label] for label in labels),
        attribute_names=tuple(map(spec.attribute, labels, speeds)),
    )


def write_results(
    path: str | Path, samples: Iterable[GlobalBoxes], scoring: Scoring | None = None
) -> None:
    """Writes a results file sample by sample; it is there when it is complete.

    Args:
        path: the JSON file; its folder is created.
        samples: the boxes of each sample; each sample once.
        scoring: writes only what is scored, under the metric's names; None writes all.
    """
    with replacing(path) as temporary, temporary.open("w") as file:
        file.write(f'{{"meta": {json.dumps(SUBMISSION_META)}, "results": {{')
        separator = "\n"
        for boxes in samples:
            records = boxes.records() if scoring is None else scoring.scored(boxes.records())
            file.write(f"{separator}{json.dumps(boxes.sample_token)}: {json.dumps(records)}")
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
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no results file at {path}; run the evaluation first")
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise InputError(
            f'{path} is no nuScenes results file: expected {{"meta": ..., "results": '
            f"{{sample token: [boxes]}}}}"
        )
    return content["results"]


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
