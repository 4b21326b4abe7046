"""The three graphs of a detector, as torch modules, and the shapes of what they pass on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from streampetr_vit.export import repdetr3d_graphs, streampetr_graphs
from streampetr_vit.export.frames import Mounting
from streampetr_vit.export.interface import Interface, Shapes
from streampetr_vit.modeling.backbone import ViT
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.repdetr3d import RepDETR3DHead
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead
from streampetr_vit.modeling.heads.temporal_head import Features


@dataclass(frozen=True)
class Graphs:
    """Modules whose arguments and results are the ports of an interface, in its order."""

    backbone: nn.Module
    position: nn.Module
    head: nn.Module
    interface: Interface


@torch.no_grad()
def make_graphs(
    detector: StreamPETR, cameras: int, image_size: tuple[int, int], mounting: Mounting
) -> Graphs:
    """The graphs of a detector that `checking.check_exportable` has let through.

    They hold the detector's own modules.

    Args:
        detector: in evaluation mode, on the CPU.
        cameras: N.
        image_size: height and width in pixels, that need no padding.
        mounting: of the frame that the graphs are to speak of.
    """
    for module in detector.backbone.modules():
        if isinstance(module, ViT) and not module.plain:
            # As constants of the graph, instead of the operators that make it.
            module.remember_plan(cameras, image_size, detector.device)
    features = detector.image_features(torch.zeros(1, cameras, 3, *image_size))
    head = detector.head
    if isinstance(head, StreamPETRHead):
        modules, shapes = _of_streampetr(detector, head, features, image_size, mounting)
    else:
        assert isinstance(head, RepDETR3DHead)
        modules, shapes = _of_repdetr3d(detector, head, features, image_size, mounting)
    interface = Interface(
        cameras=cameras,
        image_size=image_size,
        **shapes,
        embed_dim=head.embed_dim,
        memory_in=head.memory_length,
        memory_out=head.memory_length + head.num_remembered,
        queries=head.num_frame_queries,
        classes=head.num_classes,
    )
    return Graphs(*(module.eval() for module in modules), interface)


def _of_streampetr(
    detector: StreamPETR,
    head: StreamPETRHead,
    features: Features,
    image_size: tuple[int, int],
    mounting: Mounting,
) -> tuple[tuple[nn.Module, ...], Shapes]:
    """The modules, and the shapes of an `Interface` that features (1, N, C, h, w) lead to."""
    assert isinstance(features, torch.Tensor)
    cameras, cells = features.shape[1], features.shape[-2:]
    tokens = cameras * cells.numel()
    shapes = {
        "features": (1, cameras, head.embed_dim, *cells),
        "position": (1, tokens, head.embed_dim),
        "cone": (1, tokens, 8),
    }
    modules = (
        streampetr_graphs.BackboneGraph(detector),
        streampetr_graphs.PositionGraph(head, image_size, mounting),
        streampetr_graphs.HeadGraph(head, cameras, image_size, mounting),
    )
    return modules, shapes


def _of_repdetr3d(
    detector: StreamPETR,
    head: RepDETR3DHead,
    features: Features,
    image_size: tuple[int, int],
    mounting: Mounting,
) -> tuple[tuple[nn.Module, ...], Shapes]:
    """The same for levels (1, N, C, h, w)."""
    assert not isinstance(features, torch.Tensor)
    cameras = features[0].shape[1]
    sizes = [(int(level.shape[-2]), int(level.shape[-1])) for level in features]
    cells = sum(height * width for height, width in sizes)
    shapes = {
        "features": (1, cameras, head.embed_dim, cells),
        "position": (1, cameras, 2 * head.embed_dim),
        "cone": (1, cameras, 12),
    }
    modules = (
        repdetr3d_graphs.BackboneGraph(detector),
        repdetr3d_graphs.PositionGraph(head, image_size, mounting),
        repdetr3d_graphs.HeadGraph(head, image_size, sizes, mounting),
    )
    return modules, shapes
