"""Ground truth of one frame: which boxes count, and in what form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.errors import InputError
from streampetr_vit.structures import DatasetSpec

BoxArray = TypeVar("BoxArray", np.ndarray, Tensor)


def boxes_of_record(record: FrameRecord, only_with_points: bool = True) -> tuple[Tensor, Tensor]:
    """The boxes of a frame.

    Args:
        record: the frame.
        only_with_points: drop boxes without any lidar or radar point.

    Returns:
        (n, 9) float32 boxes in the lidar frame, gravity centre, velocity 0 where it is undefined,
        and (n,) int64 labels, -1 for categories of no class.
    """
    keep = has_points(record.num_lidar_pts, record.num_radar_pts) | (not only_with_points)
    boxes = torch.from_numpy(record.gt_boxes[keep]).float()  # indexing copied: the file is mapped
    boxes[boxes[:, 7].isnan(), 7:9] = 0  # the tracks do not define it
    return boxes, torch.from_numpy(record.gt_labels[keep])


def label_table(spec: DatasetSpec, class_names: Sequence[str]) -> Tensor:
    """(classes + 1,) int64: label -> index into other names, -1 where they have no such class.

    Raises:
        InputError: a name is no class of the data set.
    """
    unknown = sorted(set(class_names) - set(spec.class_names))
    if unknown:
        raise InputError(
            f"class names {unknown} are no classes of the data set; it has "
            f"{', '.join(spec.class_names)} (dataset_spec.classes)"
        )
    order = list(class_names)
    places = [order.index(name) if name in order else -1 for name in spec.class_names]
    return torch.tensor([*places, -1])  # label -1 reads the last entry


def has_points(num_lidar_pts: np.ndarray, num_radar_pts: np.ndarray) -> np.ndarray:
    """(n,) bool: boxes with a lidar or radar point."""
    return (num_lidar_pts > 0) | (num_radar_pts > 0)


def is_in_range(boxes: BoxArray, point_cloud_range: Sequence[float]) -> BoxArray:
    """(n,) bool: centres strictly inside the range, seen from above; boxes are (n, 2 or more)."""
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    x, y = boxes[:, 0], boxes[:, 1]
    return (x > x_min) & (x < x_max) & (y > y_min) & (y < y_max)


def filter_by_range(
    boxes: Tensor, labels: Tensor, point_cloud_range: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Keeps boxes whose centre lies strictly inside the range, seen from above.

    The yaw of what is kept is wrapped to [-pi, pi).

    Args:
        boxes: (n, 9).
        labels: (n,).
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) in metres; z is not looked at.
    """
    keep = is_in_range(boxes, point_cloud_range)
    boxes = boxes[keep].clone()
    # Rounded down at the half turn: pi itself becomes -pi.
    turns = torch.floor(boxes[:, 6] / (2 * math.pi) + 0.5)
    boxes[:, 6] -= turns * (2 * math.pi)
    return boxes, labels[keep]


def filter_by_class(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Drops boxes of other classes (label -1)."""
    return boxes[labels >= 0], labels[labels >= 0]
