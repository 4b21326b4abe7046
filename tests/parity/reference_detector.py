"""Builds our detector from a golden file's configuration and reads its training inputs."""

from __future__ import annotations

import re
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reference_head import Config, make_criterion, make_head, make_noise

from streampetr_vit.checkpoint.adapters import backbone_arguments_from_streampetr
from streampetr_vit.checkpoint.conversion import convert_file
from streampetr_vit.checkpoint.files import write_checkpoint
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.modeling.backbone import CPFPN, SingleScale, ViT
from streampetr_vit.modeling.criterion.image_loss import ImageLoss
from streampetr_vit.modeling.criterion.image_matcher import ImageMatcher
from streampetr_vit.modeling.criterion.training_loss import TrainingLoss
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.focal import FocalHead
from streampetr_vit.modeling.image.grid_mask import GridDraw, GridMask
from streampetr_vit.modeling.training_window import TrainingDraws, TrainingWindow
from streampetr_vit.structures import Boxes2D, FrameTargets, boxes_from_bottom_center


def make_detector(data: dict[str, Any], fast: bool, checkpointing: bool = False) -> StreamPETR:
    """Our detector with the file's weights; every tensor of the file finds its place.

    Args:
        data: of the file.
        fast: the ViT's fast form, whatever the file says of its kernel.
        checkpointing: of activations, in ViT and decoder.
    """
    config, head = data["config"], data["config"]["head"]
    vit_arguments, pyramid = backbone_arguments_from_streampetr(config["backbone"])
    assert pyramid is None
    vit = ViT(**{**vit_arguments, "use_act_checkpoint": checkpointing, "xattn": fast})
    neck, image_head, image_loss = config.get("neck"), None, None
    if config.get("roi_head"):
        image_head, image_loss = make_image_head(config["roi_head"], head)
    detector = StreamPETR(
        SingleScale(vit),
        make_head(head, None, "sdpa"),
        neck=CPFPN(neck["in_channels"], neck["out_channels"], ["last_feat"]) if neck else None,
        image_head=image_head,
        criterion=TrainingLoss(make_criterion(head), image_loss),
        denoising=make_noise(head) if head["with_dn"] else None,
        grid_mask=GridMask() if config.get("use_grid_mask") else None,
        size_divisibility=16,
        window=TrainingWindow(
            config.get("num_frame_losses", 1),
            config.get("num_frame_head_grads", 1),
            config.get("num_frame_backbone_grads", 1),
        ),
    )
    detector.head.decoder.use_act_checkpoint = checkpointing
    load_through_files(detector, data["state_dict"])
    return detector


def write_as_mmcv(path: Path, state_dict: dict[str, torch.Tensor]) -> None:
    """A training checkpoint in mmcv's layout, with a numpy number in its metadata as usual."""
    content = {
        "meta": {"mmcv_version": "1.6.0", "iter": 10, "hook_msgs": {"best": np.float64(0.5)}},
        "state_dict": OrderedDict((name, value.float()) for name, value in state_dict.items()),
        "optimizer": {"state": {}, "param_groups": [{"lr": 4e-4}]},
    }
    torch.save(content, path)


def load_through_files(detector: StreamPETR, state_dict: dict[str, torch.Tensor]) -> None:
    """The way of a released file: converted and checked against the model, saved, loaded."""
    with tempfile.TemporaryDirectory() as folder:
        released, converted = Path(folder) / "released.pth", Path(folder) / "converted.pth"
        write_as_mmcv(released, state_dict)
        conversion = convert_file(released, model=detector)
        write_checkpoint(converted, conversion.tensors, conversion.settings)
        SafeCheckpointer(detector, require_all=True).load(str(converted))


def make_image_head(config: Config, head: Config) -> tuple[FocalHead, ImageLoss]:
    """The 2D head and its losses."""
    weights, costs = config["loss_weights"], config["cost_weights"]
    image_head = FocalHead(
        head["in_channels"], config["embed_dims"], head["num_classes"], config["stride"]
    )
    matcher = ImageMatcher(
        class_weight=costs["cls"],
        box_weight=costs["reg"],
        giou_weight=costs["giou"],
        center_weight=costs["centers2d"],
    )
    loss = ImageLoss(
        matcher=matcher,
        class_weight=weights["cls2d"],
        box_weight=weights["bbox2d"],
        iou_weight=weights["iou2d"],
        center_weight=weights["centers2d"],
        centerness_weight=weights["centerness"],
    )
    return image_head, loss


def frame_targets(inputs: dict[str, Any]) -> FrameTargets:
    """Boxes of every stream, and 2D boxes of every picture where the file has them."""
    aux, boxes2d = inputs.get("aux2d"), None
    if aux is not None:
        names = ("gt_bboxes", "centers2d", "gt_labels", "depths")
        boxes2d = [
            Boxes2D(*values)
            for stream in aux
            for values in zip(*(stream[name] for name in names), strict=True)
        ]
    return FrameTargets(
        boxes=[boxes_from_bottom_center(b.float().reshape(-1, 9)) for b in inputs["gt_bboxes_3d"]],
        labels=[labels.long() for labels in inputs["gt_labels_3d"]],
        boxes2d=boxes2d,
    )


def training_draws(
    detector: StreamPETR, config: Config, targets: list[FrameTargets], expected: dict[str, Any]
) -> TrainingDraws:
    """The recorded draws, for the frames that the heads see with gradients."""
    denoising = []
    recorded_frames = expected["frames"][-config["num_frame_head_grads"] :]
    for recorded, here in zip(recorded_frames, targets, strict=True):
        if detector.denoising is None:
            denoising.append(None)
            continue
        drawn = recorded and recorded["dn"]
        denoising.append(
            detector.denoising.make(
                here.boxes,
                here.labels,
                detector.head.point_cloud_range,
                detector.head.num_classes,
                drawn["rand"] if drawn else torch.empty(0, 3),
            )
        )
    return TrainingDraws(grid_draw(config, expected["gridmask_draws"]), denoising)


def grid_draw(config: Config, recorded: list[dict[str, Any]] | None) -> GridDraw | None:
    """The first call's draw: pictures with gradients come first, history is not masked."""
    values = [int(d["value"][0]) for d in recorded or [] if d["fn"] == "randint"]
    if not config["use_grid_mask"] or not values:
        return None
    period, row_start, column_start, _ = values
    return GridDraw(period, row_start, column_start)


def reference_name(name: str, num_frames: int) -> str:
    """The reference's name of one of our losses in a window."""
    age = re.match(r"t-(\d+)\.", name)
    time = num_frames - 1 - (int(age[1]) if age else 0)
    return f"frame_{time}_{name[age.end() :] if age else name}"
