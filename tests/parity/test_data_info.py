"""From a raw record to matrices and filtered boxes, against the reference."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest
import torch

from streampetr_vit.data.annotations import (
    boxes_of_record,
    filter_by_class,
    filter_by_range,
    label_table,
)
from streampetr_vit.data.frame_geometry import FrameGeometry
from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import Pose, boxes_to_bottom_center

FILES = golden.files_of("data_info")


def _record(info: dict, cameras: list[str]) -> FrameRecord:
    """The file's record in our form; it stores boxes and points already joined."""
    views = [info["cams"][name] for name in cameras]
    camera_to_lidar = np.tile(np.eye(4), (len(views), 1, 1))
    for matrix, view in zip(camera_to_lidar, views, strict=True):
        matrix[:3, :3] = view["sensor2lidar_rotation"]
        matrix[:3, 3] = view["sensor2lidar_translation"]
    names = NUSCENES.class_names
    labels = [names.index(n) if n in names else -1 for n in info["gt_names"]]
    valid = info["valid_flag"].numpy()
    pose = {
        name: Pose(np.array(info[f"{name}_translation"]), np.array(info[f"{name}_rotation_wxyz"]))
        for name in ("lidar2ego", "ego2global")
    }
    half_yaw = info["gt_boxes"][:, 6].numpy() / 2
    upright = np.zeros_like(half_yaw)
    return FrameRecord(
        root=Path("."),
        token="",
        scene_token="",
        scene_name="",
        timestamp_us=info["timestamp_us"],
        spec=NUSCENES,
        lidar_to_ego=pose["lidar2ego"],
        ego_to_global=pose["ego2global"],
        camera_paths=("",) * len(views),
        camera_timestamps_us=np.array([view["timestamp_us"] for view in views]),
        camera_to_lidar=camera_to_lidar,
        camera_intrinsics=np.stack([view["cam_intrinsic"].numpy() for view in views]),
        image_sizes=np.zeros((len(views), 2), np.int32),
        gt_boxes=torch.cat((info["gt_boxes"], info["gt_velocity"]), dim=1).numpy(),
        gt_rotation=np.stack((np.cos(half_yaw), upright, upright, np.sin(half_yaw)), axis=1),
        gt_labels=np.array(labels, dtype=np.int64),
        num_lidar_pts=valid.astype(np.int32),
        num_radar_pts=np.zeros(len(valid), np.int32),
        instance=np.zeros(len(valid), np.int32),
        has_annotations=True,
    )


def _cases(path: Path):
    data = golden.load(path)
    for info, expected in zip(data["inputs"], data["outputs"], strict=True):
        yield data["config"], _record(info, data["config"]["cameras"]), expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_matrices_and_time(path: Path) -> None:
    for _, record, expected in _cases(path):
        geometry = FrameGeometry.of_record(record)
        pairs = {
            "ego_pose": geometry.lidar_to_global,
            "ego_pose_inv": geometry.global_to_lidar,
            "intrinsics": geometry.intrinsics,
            "extrinsics": geometry.lidar_to_camera,
            "lidar2img": geometry.lidar_to_image,
        }
        for name, actual in pairs.items():
            reference = expected[name]
            if isinstance(reference, list):
                reference = torch.stack(reference)
            golden.assert_close(actual, reference, name, atol=1e-4)
        assert record.timestamp_us / 1e6 == expected["timestamp"]
        assert (record.camera_timestamps_us / 1e6).tolist() == expected["img_timestamp"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_boxes_and_filters(path: Path) -> None:
    for config, record, expected in _cases(path):
        boxes, labels = boxes_of_record(record, config["use_valid_flag"])
        labels = label_table(NUSCENES, config["classes"])[labels]  # the file's order of classes
        _same(boxes, labels, expected["gt_bboxes_3d"], expected["gt_labels_3d"], "loaded")
        boxes, labels = filter_by_range(boxes, labels, config["range_filter"])
        for stage in ("range_filtered", "name_filtered"):
            if stage == "name_filtered":
                boxes, labels = filter_by_class(boxes, labels)
            _same(boxes, labels, expected[f"{stage}_boxes"], expected[f"{stage}_labels"], stage)


def _same(boxes, labels, expected_boxes, expected_labels, name: str) -> None:
    golden.assert_close(boxes_to_bottom_center(boxes), expected_boxes, name, atol=1e-5)
    assert labels.tolist() == expected_labels.tolist(), name
