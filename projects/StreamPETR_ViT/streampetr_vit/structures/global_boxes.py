"""Boxes of one moment in the world frame, as the results of the nuScenes task have them.

Everything runs in float64. n is the number of boxes.
Source: released StreamPETR behaviour (frames, class ranges, attributes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from streampetr_vit.structures.dataset_spec import DatasetSpec
from streampetr_vit.structures.detections import Detections
from streampetr_vit.structures.pose import Pose

FloatArray = NDArray[np.float64]


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
        rows: (n,) int64, which of the detections each box is; None where there were none.
        queries, lineages: (n,) int64 as in `Detections`; None where they are unknown.
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
    rows: NDArray[np.int64] | None = None
    queries: NDArray[np.int64] | None = None
    lineages: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def without_origin(self) -> GlobalBoxes:
        """The boxes alone: what only a tracker reads would be a sixth of all."""
        return replace(self, rows=None, queries=None, lineages=None)

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

    @staticmethod
    def of(
        detections: Detections,
        reference_to_vehicle: Pose,
        vehicle_to_world: Pose,
        sample_token: str,
        spec: DatasetSpec,
    ) -> GlobalBoxes:
        """Moves detections to the world, drops those out of range, names their attributes.

        Args:
            detections: in the reference frame (nuScenes: that of the lidar); any device.
            reference_to_vehicle: pose of that frame on the vehicle.
            vehicle_to_world: pose of the vehicle at the moment of the reference frame.
            sample_token: the sample.
            spec: names, ranges and attributes of the classes.

        Returns:
            At most n boxes, in the same order.
        """
        boxes = detections.boxes.detach().cpu().double().numpy()
        labels = detections.labels.cpu().numpy()
        scores = detections.scores.detach().cpu().double().numpy()
        to_vehicle, to_world = reference_to_vehicle.rotation(), vehicle_to_world.rotation()

        center = to_vehicle.apply(boxes[:, :3]) + reference_to_vehicle.translation_m  # (n, 3)
        limits = np.array([entry.range_m for entry in spec.classes], dtype=np.float64)
        # In the vehicle's xy plane, from its origin: as the metric measures the range.
        kept = np.hypot(center[:, 0], center[:, 1]) <= limits[labels]
        boxes, labels, center = boxes[kept], labels[kept], center[kept]
        rows = np.flatnonzero(kept)

        # (n, 2) -> (n, 3) -> (n, 2): files have no vertical velocity, tilted poses make one.
        rotation = to_world * to_vehicle
        velocity = rotation.apply(np.pad(boxes[:, 7:9], ((0, 0), (0, 1))))[:, :2]
        # (w, x, y, z) * (cos, 0, 0, sin), with the lidar's roll and pitch. Not by way of rotation
        # matrices: they lose the sign of a quaternion, and released result files keep it.
        x, y, z, w = rotation.as_quat()
        cos, sin = np.cos(boxes[:, 6] / 2), np.sin(boxes[:, 6] / 2)  # (n,)
        turned = (w * cos - z * sin, x * cos + y * sin, y * cos - x * sin, z * cos + w * sin)
        names = spec.class_names
        speeds = np.hypot(velocity[:, 0], velocity[:, 1])
        return GlobalBoxes(
            sample_token=sample_token,
            center_global_m=to_world.apply(center) + vehicle_to_world.translation_m,
            size_wlh_m=boxes[:, [4, 3, 5]],  # l, w, h -> w, l, h
            rotation_wxyz=np.stack(turned, axis=1),  # (n, 4)
            velocity_global_mps=velocity,
            scores=scores[kept],
            class_names=tuple(names[label] for label in labels),
            attribute_names=tuple(map(spec.attribute, labels, speeds)),
            rows=rows,
            queries=_rows(detections.queries, rows),
            lineages=_rows(detections.lineages, rows),
        )


def _rows(column: Tensor | None, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    return None if column is None else column.cpu().numpy()[rows]
