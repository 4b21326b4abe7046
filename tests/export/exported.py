"""Exports of the tiny detectors, for tests of what reads or checks them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from nuscenes_export import described
from tiny_detector import HEIGHT, WIDTH, make_detector, make_repdetr3d
from torch import nn

from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import Interface
from streampetr_vit.export.writing import export_graphs
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Pose

# As nuScenes' lidar, but tilted by two degrees, so that its yaw is another one there and back.
MOUNTED = Pose(np.array([0.94, -0.07, 1.84]), np.array([0.70700, -0.01234, 0.01834, -0.70700]))
T = TypeVar("T", bound=nn.Module)


@dataclass(frozen=True)
class Export:
    """A detector, and the folder of its graphs. Both are shared by tests: read only."""

    detector: StreamPETR
    folder: Path


def tiny_description(detector: StreamPETR, **changes: Any) -> Description:
    """Of a detector of `tiny_detector`; `changes` replace attributes."""
    head = detector.head
    values = dict(
        recipe="tiny",
        detector=type(head).__name__,
        image_size=(HEIGHT, WIDTH),
        pixel_mean=tuple(detector.pixel_mean.flatten().tolist()),
        pixel_std=tuple(detector.pixel_std.flatten().tolist()),
        input_format=detector.input_format,
        lidar_to_base_link=tuple(map(tuple, MOUNTED.matrix().tolist())),
        max_detections=head.max_detections,
        score_threshold=head.score_threshold,
        num_queries=head.num_queries,
        num_remembered=head.num_remembered,
    )
    return replace(described(), **(values | changes))


def export_tiny(detector: StreamPETR, folder: Path, **changes: Any) -> Interface:
    """Writes its three graphs; `changes` replace attributes of the description."""
    folder.mkdir(parents=True, exist_ok=True)
    return export_graphs(detector, tiny_description(detector, **changes), folder)


def apart(module: T, seed: int = 0) -> T:
    """The same, in evaluation mode, with weights of which no two are equal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def make_cut_windows() -> StreamPETR:
    """A detector whose windows the border cuts, with a prior, BGR pictures and a threshold."""
    detector = make_detector(1, score_threshold=0.081, prior_sigma_cells=2.5)
    for block in detector.backbone.net.blocks:
        block.attn.window_size, block.attn.rope = 3, None  # of 2 x 4 tokens
    detector.input_format = "BGR"
    detector.pixel_mean[:, 0, 0] = torch.tensor([103.53, 116.28, 123.675])
    detector.pixel_std[:, 0, 0] = torch.tensor([57.0, 40.0, 70.0])
    return detector


def make_normed_repdetr3d() -> StreamPETR:
    """RepDETR3D on a ViT that pads its windows, with batch norms, and a level that nobody reads."""
    detector = make_repdetr3d()
    vit = detector.backbone.net
    vit.plain = True
    torch.manual_seed(0)
    detector.backbone = SimpleFeaturePyramid(vit, "last_feat", 32, [2, 1, 0.5], norm="BN")
    return detector


# What makes a detector, and how it is exported. Tests share them: an export takes 10 seconds.
KINDS: dict[str, tuple[Callable[[], StreamPETR], dict[str, str]]] = {
    "lidar": (lambda: apart(make_detector()), dict(frame="lidar")),
    "base_link": (lambda: apart(make_cut_windows()), dict(frame="base_link")),
    "repdetr3d": (lambda: apart(make_normed_repdetr3d()), dict(frame="base_link")),
    # Its norms are all ones: the exporter keeps one of them.
    "half": (make_detector, dict(frame="lidar", precision="fp16-backbone")),
}
FLOAT32 = ("lidar", "base_link", "repdetr3d")


def make_export(kind: str, folder: Path) -> Export:
    """Exports one of `KINDS`."""
    make, options = KINDS[kind]
    detector = make().eval()
    with torch.no_grad():  # classes far from each other: no scores tie
        detector.head.class_branch[-1].weight.mul_(5)
    export_tiny(detector, folder, **options)
    return Export(detector, folder)
