"""Made-up input of a surround-view rig.

Shape letters: N cameras, H W image height and width in pixels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from streampetr_vit.data.batch import Batch
from streampetr_vit.structures import Boxes2D, Frame, Sample

NUM_BOXES = 30  # objects of a made-up frame; nuScenes has about as many on average
RANGE_M = 50.0  # of the objects, along x and y


def made_up_sample(image_size: tuple[int, int], cameras: int = 6, num_classes: int = 10) -> Sample:
    """A sample as the training mapper gives it, with random pictures and objects.

    Args:
        image_size: (H, W).
        cameras: N.
        num_classes: of the objects.
    """
    rng = torch.Generator().manual_seed(0)
    lidar_to_camera, intrinsics = _ring(image_size, cameras)
    boxes = RANGE_M * (2 * torch.rand(NUM_BOXES, 9, generator=rng) - 1)
    boxes[:, 2] = -1.0
    boxes[:, 3:6] = 0.5 + 4 * torch.rand(NUM_BOXES, 3, generator=rng)
    boxes[:, 6:] = torch.randn(NUM_BOXES, 3, generator=rng)
    labels = torch.randint(0, num_classes, (NUM_BOXES,), generator=rng)
    sides = torch.tensor(image_size[::-1], dtype=torch.float32)
    centers = sides * (0.1 + 0.8 * torch.rand(5, 2, generator=rng))
    corners = torch.cat((centers - 0.05 * sides, centers + 0.05 * sides), dim=1)  # (5, 4)
    return Sample(
        images=torch.randint(0, 256, (cameras, 3, *image_size), generator=rng, dtype=torch.uint8),
        intrinsics=intrinsics,
        lidar_to_camera=lidar_to_camera,
        lidar_to_image=intrinsics @ lidar_to_camera,
        lidar_to_global=torch.eye(4, dtype=torch.float64),
        global_to_lidar=torch.eye(4, dtype=torch.float64),
        timestamp_s=torch.tensor(1.5e9, dtype=torch.float64),
        continues_stream=torch.tensor(True),
        gt_boxes=boxes,
        gt_labels=labels,
        boxes2d=[Boxes2D(corners, centers, labels[:5], torch.full((5,), 10.0))] * cameras,
    )


def _ring(image_size: tuple[int, int], cameras: int) -> tuple[Tensor, Tensor]:
    """lidar_to_camera and intrinsics, (N, 4, 4) each, of cameras that look all around.

    The first looks along the lidar's y axis, ahead. The focal length is that of nuScenes' cameras.
    """
    height, width = image_size
    angle = torch.arange(cameras) * (2 * math.pi / cameras)
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros(cameras), torch.ones(cameras)
    to_camera, intrinsics = torch.eye(4).repeat(2, cameras, 1, 1)  # (N, 4, 4) each
    # Rows: to the right in the picture, down, and along the view. (N, 9) -> (N, 3, 3)
    axes = torch.stack((c, s, zero, zero, zero, -one, -s, c, zero), dim=-1)
    to_camera[:, :3, :3] = axes.unflatten(-1, (3, 3))
    to_camera[:, 1, 3] = -0.3  # below the lidar
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 0.79 * width
    intrinsics[:, :2, 2] = torch.tensor([width / 2, height / 2])
    return to_camera, intrinsics


def made_up_frame(image_size: tuple[int, int], cameras: int, batch: int) -> Frame:
    """A frame of `batch` equal streams; see `made_up_sample`."""
    return Frame.collate([made_up_sample(image_size, cameras)] * batch)


def made_up_batch(cfg: DictConfig, image_size: tuple[int, int], batch: int) -> Batch:
    """A training batch as the configuration's loader gives it: samples, or windows of samples."""
    sample: Any = made_up_sample(image_size, num_classes=cfg.model.head.num_classes)
    settings = cfg.dataloader.train
    if settings.get("window_length") is not None:
        sample = [sample] * (settings.window_length - settings.get("window_drop", 1))
    return Batch([sample] * batch)
