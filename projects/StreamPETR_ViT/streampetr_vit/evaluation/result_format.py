"""Detections in the lidar frame <-> result records of the nuScenes detection task (global frame).

Everything after the boxes runs in float64. n is the number of boxes of one sample.
Source: released StreamPETR behaviour (frames, class ranges, attributes); the submission format of
the nuScenes detection task (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.files import replacing
from streampetr_vit.structures import DatasetSpec, Detections, Pose

FloatArray = NDArray[np.float64]

MAX_BOXES_PER_SAMPLE = 500  # of the nuScenes task
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

    def renamed(self, names: Mapping[str, str], attributes: Collection[str]) -> GlobalBoxes:
        """The boxes of some classes under other names.

        Args:
            names: class -> new name; boxes of other classes are left out.
            attributes: that are kept; others become "".
        """
        kept = [row for row, name in enumerate(self.class_names) if name in names]
        attribute_names = [self.attribute_names[row] for row in kept]
        return GlobalBoxes(
            self.sample_token,
            self.center_global_m[kept],
            self.size_wlh_m[kept],
            self.rotation_wxyz[kept],
            self.velocity_global_mps[kept],
            self.scores[kept],
            tuple(names[self.class_names[row]] for row in kept),
            tuple(name if name in attributes else "" for name in attribute_names),
        )

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
        # Columns -> rows: the file has a dict for each box.
        rows = zip(*columns.values(), strict=True)
        return [
            {"sample_token": self.sample_token, **dict(zip(columns, row, strict=True))}
            for row in rows
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
    velocity_lidar = np.concatenate((boxes[:, 7:9], np.zeros((len(boxes), 1))), axis=1)
    velocity = ego_rotation.apply(lidar_rotation.apply(velocity_lidar))[:, :2]
    # The lidar's roll and pitch stay in the quaternions.
    to_global = multiply_quaternions(_unit(ego_to_global), _unit(lidar_to_ego))
    speeds = np.hypot(velocity[:, 0], velocity[:, 1])
    return GlobalBoxes(
        sample_token=sample_token,
        center_global_m=ego_rotation.apply(center_ego) + ego_to_global.translation_m,
        size_wlh_m=boxes[:, [4, 3, 5]],  # l, w, h -> w, l, h
        # (4,) * (n, 4) -> (n, 4)
        rotation_wxyz=multiply_quaternions(to_global, _yaw_quaternions(boxes[:, 6])),
        velocity_global_mps=velocity,
        scores=scores[kept],
        class_names=tuple(spec.class_names[label] for label in labels),
        attribute_names=tuple(map(spec.attribute, labels, speeds)),
    )


def multiply_quaternions(a: FloatArray, b: FloatArray) -> FloatArray:
    """Hamilton products a*b of quaternions (w, x, y, z), (..., 4) each, broadcast."""
    # Not by way of rotation matrices: they lose the sign, and released result files keep it.
    aw, ax, ay, az = np.moveaxis(np.asarray(a, dtype=np.float64), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(b, dtype=np.float64), -1, 0)
    return np.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        axis=-1,
    )


def write_results(path: str | Path, samples: Iterable[GlobalBoxes]) -> None:
    """Writes a results file sample by sample; it is there when it is complete.

    Args:
        path: the JSON file; its folder is created.
        samples: the boxes of each sample; each sample once.
    """
    with replacing(path) as temporary, temporary.open("w") as file:
        file.write(f'{{"meta": {json.dumps(SUBMISSION_META)}, "results": {{')
        for index, boxes in enumerate(samples):
            separator = ",\n" if index else "\n"
            token, records = json.dumps(boxes.sample_token), json.dumps(boxes.records())
            file.write(f"{separator}{token}: {records}")
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
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error}); write it again") from error
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
        records: boxes of one sample in the global frame.
        lidar_to_ego, ego_to_global: as there.
        class_names: names of the labels.

    Returns:
        The detections, sorted by descending score.

    Raises:
        InputError: a record names an unknown class.
    """
    if not records:
        return Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    unknown = sorted({r["detection_name"] for r in records} - set(class_names))
    if unknown:
        raise InputError(f"detection_name {unknown} is not among {list(class_names)}")

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
    # (n, 2) -> (n, 3)
    velocity = np.concatenate((column("velocity"), np.zeros((len(records), 1))), axis=1)
    boxes = np.concatenate(
        (
            center,
            column("size")[:, [1, 0, 2]],  # w, l, h -> l, w, h
            np.arctan2(heading[:, 1], heading[:, 0])[:, None],
            (velocity @ rotation.T)[:, :2],
        ),
        axis=1,
    )  # (n, 9)
    scores = column("detection_score")
    order = np.argsort(-scores, kind="stable")  # equal scores keep the order of the file
    labels = np.array([class_names.index(record["detection_name"]) for record in records])
    return Detections(
        boxes=torch.from_numpy(boxes[order]).float(),
        scores=torch.from_numpy(scores[order]).float(),
        labels=torch.from_numpy(labels[order]).long(),
    )


def _unit(pose: Pose) -> FloatArray:
    """The pose's quaternion, (4,) wxyz, of unit length and with its own sign."""
    rotation = np.asarray(pose.rotation_wxyz, dtype=np.float64)
    return rotation / np.linalg.norm(rotation)


def _yaw_quaternions(yaw_rad: FloatArray) -> FloatArray:
    """(n, 4) quaternions wxyz of rotations about +z."""
    zero = np.zeros_like(yaw_rad)
    return np.stack((np.cos(yaw_rad / 2), zero, zero, np.sin(yaw_rad / 2)), axis=-1)
