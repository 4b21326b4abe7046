"""What goes into the detector: made-up frames of a surround-view rig, or those of a data set.

Shape letters: N cameras, H W image height and width in pixels.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from streampetr_vit.benchmark.session import Session
from streampetr_vit.engine.config import call
from streampetr_vit.structures import Boxes2D, Frame
from synthetic_nuscenes.rig import (
    LIDAR_TRANSLATION,
    LIDAR_YAW_RAD,
    make_rig,
)

Sample = dict[str, Any]
NUM_BOXES = 30  # objects of a made-up frame; nuScenes has about as many on average
_FRAMES_AT_MOST = 32  # of a data set, kept in memory


def made_up_sample(
    image_size: tuple[int, int], cameras: int = 6, num_classes: int = 10, range_m: float = 50.0
) -> Sample:
    """A sample as the training mapper gives it, with random pictures and objects.

    Args:
        image_size: (H, W).
        cameras: N; more than six are the six once more.
        num_classes: of the objects.
        range_m: objects are within +- this of the lidar, along x and y.
    """
    generator = torch.Generator().manual_seed(0)
    lidar_to_camera, intrinsics = _calibration(image_size, cameras)
    images = torch.randint(
        0, 256, (cameras, 3, *image_size), generator=generator, dtype=torch.uint8
    )
    boxes = range_m * (2 * torch.rand(NUM_BOXES, 9, generator=generator) - 1)
    boxes[:, 2] = -1.0
    boxes[:, 3:6] = 0.5 + 4 * torch.rand(NUM_BOXES, 3, generator=generator)
    boxes[:, 6:] = torch.randn(NUM_BOXES, 3, generator=generator)
    labels = torch.randint(0, num_classes, (NUM_BOXES,), generator=generator)
    return {
        "images": images,
        "intrinsics": intrinsics,
        "lidar_to_camera": lidar_to_camera,
        "lidar_to_image": intrinsics @ lidar_to_camera,
        "lidar_to_global": torch.eye(4),
        "global_to_lidar": torch.eye(4),
        "timestamp_s": torch.tensor(1.5e9, dtype=torch.float64),
        "continues_stream": torch.tensor(False),
        "scene_token": "made-up",
        "gt_boxes": boxes,
        "gt_labels": labels,
        "boxes2d": _boxes2d(image_size, cameras, labels, generator),
    }


def _calibration(image_size: tuple[int, int], cameras: int) -> tuple[Tensor, Tensor]:
    """lidar_to_camera and intrinsics, (N, 4, 4) float32 each."""
    height, width = image_size
    rig = make_rig(np.random.default_rng(0), width, height)
    c, s = np.cos(LIDAR_YAW_RAD), np.sin(LIDAR_YAW_RAD)
    lidar_to_ego = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    to_camera = np.tile(np.eye(4), (cameras, 1, 1))
    intrinsics = to_camera.copy()
    for index in range(cameras):
        camera = rig[index % len(rig)].placed(np.zeros(2), 0.0)
        to_camera[index, :3, :3] = camera.axes() @ lidar_to_ego
        to_camera[index, :3, 3] = camera.to_camera(np.array(LIDAR_TRANSLATION))
        intrinsics[index, :3, :3] = camera.camera.intrinsic
    return torch.from_numpy(to_camera).float(), torch.from_numpy(intrinsics).float()


def _boxes2d(
    image_size: tuple[int, int], cameras: int, labels: Tensor, generator: torch.Generator
) -> list[Boxes2D]:
    """Five random boxes in each picture."""
    sides = torch.tensor(image_size[::-1], dtype=torch.float32)
    targets = []
    for _ in range(cameras):
        centers = sides * (0.1 + 0.8 * torch.rand(5, 2, generator=generator))
        reach = 0.05 * sides
        corners = torch.cat((centers - reach, centers + reach), dim=1)
        targets.append(Boxes2D(corners, centers, labels[:5], torch.full((5,), 10.0)))
    return targets


def made_up_frame(
    image_size: tuple[int, int], cameras: int, batch: int, device: torch.device
) -> Frame:
    """A frame of `batch` equal streams; see `made_up_sample`."""
    return Frame.collate([made_up_sample(image_size, cameras)] * batch).to(device)


def frames_to_run(session: Session, from_data: bool, cameras: int, batch: int) -> list[Frame]:
    """The frames to run, on the device: a made-up one, or the first of the test set.

    Args:
        session: whose configuration names size and data set.
        from_data: take the frames of dataloader.test, each for every stream.
        cameras: of the made-up rig.
        batch: streams.
    """
    if not from_data:
        return [made_up_frame(session.image_size, cameras, batch, session.device)]
    loader = call(session.cfg.dataloader.test, num_workers=0, rank=0, world_size=1)
    wanted = min(session.repeats.timed + session.repeats.warmup, _FRAMES_AT_MOST)
    return [
        Frame.collate([samples[0]] * batch).to(session.device) for samples in islice(loader, wanted)
    ]


def continuing(frame: Frame) -> Frame:
    """The same frame, taken as the next one of its streams."""
    return replace(frame, continues_stream=torch.ones_like(frame.continues_stream))


def made_up_batch(cfg: DictConfig, image_size: tuple[int, int], batch: int) -> list[Any]:
    """A training batch as the configuration's loader gives it: samples, or windows of samples."""
    sample = made_up_sample(image_size, num_classes=cfg.model.head.num_classes)
    settings = cfg.dataloader.train
    length = settings.get("window_length")
    if length is None:
        return [sample] * batch
    return [[sample] * (length - settings.get("window_drop", 1))] * batch
