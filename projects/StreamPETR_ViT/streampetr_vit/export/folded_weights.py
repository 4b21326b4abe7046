"""What the exporter computes from weights alone, and keeps in their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from streampetr_vit.modeling.backbone import ViT
from streampetr_vit.modeling.backbone.eva02_vit import resize_positions
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.ops.geometry import denormalize_from_range

_BatchNorm = (nn.BatchNorm2d, FrozenBatchNorm2d)
_Convolution = (nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True)
class Folded:
    """A constant that stands for some weights, by their names in the state_dict.

    A constant of a graph may have more behind it, such as what it is padded with.
    """

    names: frozenset[str]
    value: np.ndarray


@torch.no_grad()
def folded_weights(detector: StreamPETR, image_size: tuple[int, int]) -> list[Folded]:
    """All that the exporter can compute before it knows an input.

    Args:
        detector: in evaluation mode, on the CPU.
        image_size: (height, width) of the pictures in pixels.
    """
    head = detector.head
    # In metres.
    start_points = denormalize_from_range(head.start_points, head.point_cloud_range)
    found = [_folded(start_points, "head.start_points")]
    for name, module in detector.named_modules():
        if isinstance(module, ViT) and module.pos_embed is not None:
            height, width = (side // module.patch_size for side in image_size)
            has_cls_row = module.pretrain_use_cls_token
            table = resize_positions(module.pos_embed, (height, width), has_cls_row)
            found.append(_folded(table, f"{name}.pos_embed"))
        for conv, norm in _convolutions_with_norms(module):
            paths = [".".join(filter(None, (name, part))) for part in (conv, norm)]
            found += _joined(*paths, module.get_submodule(conv), module.get_submodule(norm))
    return found


def _folded(value: Tensor, *names: str) -> Folded:
    return Folded(frozenset(names), value.numpy())


def _joined(conv_name: str, norm_name: str, conv: nn.Module, norm: nn.Module) -> list[Folded]:
    """Weight and bias of a convolution that does what the batch norm behind it does as well."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()  # (C,) of the output
    offset = norm.bias - norm.running_mean * scale
    biases = [f"{norm_name}.bias", f"{norm_name}.running_mean"]
    if conv.bias is not None:
        offset = offset + conv.bias * scale
        biases.append(f"{conv_name}.bias")
    # (C, in, k, k), of transposed ones (in, C, k, k)
    shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    weight = conv.weight * scale.view(shape)
    weights = [f"{conv_name}.weight", f"{norm_name}.weight", f"{norm_name}.running_var"]
    return [_folded(weight, *weights), _folded(offset, *biases)]


def _convolutions_with_norms(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names below a module of a convolution and the batch norm behind it; "" is the module."""
    if isinstance(module, _Convolution) and isinstance(getattr(module, "norm", None), _BatchNorm):
        yield "", "norm"  # detectron2's convolutions have their norms
    if isinstance(module, nn.Sequential):
        for (name, layer), (next_name, following) in pairwise(module.named_children()):
            if isinstance(layer, _Convolution) and isinstance(following, _BatchNorm):
                yield name, next_name
