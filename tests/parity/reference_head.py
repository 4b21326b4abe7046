"""Builds our head from a golden file's configuration and reads its inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters import head_from_streampetr
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.criterion.matcher import HungarianMatcher
from streampetr_vit.modeling.decoder.decoder import TemporalDecoder
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead
from streampetr_vit.modeling.image.position_encoder import ImagePositionEncoder
from streampetr_vit.modeling.temporal.memory import NO_LINEAGE, TemporalMemory
from streampetr_vit.structures import CameraRig, Frame, boxes_from_bottom_center

Config = dict[str, Any]

# Name of a memory tensor in the files -> ours, with the base tolerance of its unit.
MEMORY_FIELDS = {
    "memory_embedding": ("embedding", 1e-5),
    "memory_reference_point": ("center_m", 1e-4),
    "memory_timestamp": ("time_s", 1e-6),
    "memory_egopose": ("pose", 1e-4),
    "memory_velo": ("velocity_mps", 1e-5),
}


def make_position_encoder(config: Config) -> ImagePositionEncoder:
    return ImagePositionEncoder(
        embed_dim=config["embed_dims"],
        position_range=tuple(config["position_range"]),
        depth_num=config["depth_num"],
        depth_start_m=config["depth_start"],
        linear_increasing_depth=config["LID"],
    )


def make_decoder(config: Config, num_layers: int, kernel: str = "sdpa") -> TemporalDecoder:
    return TemporalDecoder(
        embed_dim=config["embed_dims"],
        num_heads=config["num_heads"],
        feedforward_dim=config["ffn_dims"],
        num_layers=num_layers,
        dropout=0.0,
        kernel=kernel,
    )


def make_head(config: Config, state_dict: dict[str, Tensor] | None, kernel: str) -> StreamPETRHead:
    """Our head with the file's weights, if given; every tensor of the file finds its place."""
    head = StreamPETRHead(
        in_channels=config["in_channels"],
        decoder=make_decoder(config, config["num_decoder_layers"], kernel),
        position_encoder=make_position_encoder(config),
        num_classes=config["num_classes"],
        num_queries=config["num_query"],
        num_propagated=config["num_propagated"],
        memory_length=config["memory_len"],
        num_remembered=config["topk_proposals"],
        point_cloud_range=tuple(config["pc_range"]),
        center_range=tuple(config["post_center_range"]),
        max_detections=config["max_num"],
        score_threshold=config["score_threshold"],
        stride=config["stride"],
        with_ego_pose=config["with_ego_pos"],
        num_branch_layers=config["num_reg_fcs"],
    )
    if state_dict is None:
        return head
    tensors, constants = head_from_streampetr(state_dict)
    if config["num_propagated"] == 0:  # the reference has no such tensor then
        tensors["start_points"] = torch.empty(0, 3)
    head.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=True)
    assert constants["pc_range"].tolist() == head.point_cloud_range.tolist()
    assert constants["position_range"].tolist() == head.position_encoder.position_range.tolist()
    return head


def make_criterion(config: Config) -> DetectionLoss:
    return DetectionLoss(
        matcher=HungarianMatcher(
            class_weight=config["cost_cls_weight"],
            box_weight=config["cost_reg_weight"],
            code_weights=tuple(config["match_costs"] or config["code_weights"]),
            with_velocity=config["match_with_velo"],
        ),
        class_weight=config["loss_cls_weight"],
        box_weight=config["loss_bbox_weight"],
        denoising_weight=config["dn_weight"],
        code_weights=tuple(config["code_weights"]),
        max_positive_distance=config["split"],
    )


def make_noise(config: Config) -> DenoisingNoise:
    return DenoisingNoise(
        groups=config["scalar"],
        scale=config["noise_scale"],
        translation_m=config["noise_trans"],
        max_positive_distance=config["split"],
    )


def make_frame(inputs: dict[str, Any]) -> Frame:
    """Calibration, pose and time of a recorded frame; the head does not read images."""
    batch, cameras = inputs["lidar2img"].shape[:2]
    return Frame(
        images=torch.empty(batch, cameras, 3, 0, 0),
        rig=CameraRig(
            lidar_to_image=inputs["lidar2img"].float(),
            intrinsics=inputs["intrinsics"].float(),
            lidar_to_camera=inputs["extrinsics"].float(),
        ),
        lidar_to_global=inputs["ego_pose"],
        global_to_lidar=inputs["ego_pose_inv"],
        timestamp_s=inputs["timestamp"],
        continues_stream=inputs["prev_exists"].bool(),
    )


def make_memory(recorded: dict[str, Tensor]) -> TemporalMemory:
    tensors = {ours: recorded[name] for name, (ours, _) in MEMORY_FIELDS.items()}
    lineage = torch.full(tensors["time_s"].shape[:2], NO_LINEAGE)
    return TemporalMemory(**tensors, lineage=lineage)


def true_boxes(inputs: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Boxes (gravity centre) and labels of every stream."""
    boxes = [boxes_from_bottom_center(b.float().reshape(-1, 9)) for b in inputs["gt_boxes"]]
    return boxes, [labels.long() for labels in inputs["gt_labels"]]


def assigned_gt_inds(pairs: Tensor, num_rows: int) -> Tensor:
    """The files' form of an assignment: per row 0, or 1 + the column of its pair."""
    indexes = torch.zeros(num_rows, dtype=torch.long)
    indexes[pairs[:, 0]] = pairs[:, 1] + 1
    return indexes
