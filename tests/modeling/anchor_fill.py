"""Deterministic weights and images; the anchors are what the released backbone makes of them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

IMAGE_INDEX = 1000


def signed_hash(count: int, index: int) -> np.ndarray:
    """`count` float64 values in [-1, 1), a pure function of the element's and tensor's index."""
    elements = np.arange(1, count + 1, dtype=np.float64)
    value = np.sin(12.9898 * elements + 78.233 * (index + 1)) * 43758.5453
    return 2.0 * (value - np.floor(value)) - 1.0


def filled_image(*shape: int) -> Tensor:
    """An image batch in NCHW order."""
    values = signed_hash(math.prod(shape), IMAGE_INDEX)
    return torch.from_numpy(values).float().reshape(shape)


def reference_name(name: str) -> str:
    """The name that decides a parameter's place in the order: StreamPETR's."""
    return name.removeprefix("net.") if name.startswith("net.") else f"adapter.{name}"


def fill_parameters(backbone: nn.Module) -> None:
    """Overwrites every parameter of a `SingleScale` or `SimpleFeaturePyramid`."""
    by_name = {reference_name(name): value for name, value in backbone.named_parameters()}
    with torch.no_grad():
        for index, name in enumerate(sorted(by_name)):
            parameter = by_name[name]
            values = signed_hash(parameter.numel(), index)
            if parameter.dim() == 1:
                values = 1.0 + 0.2 * values if name.endswith("weight") else 0.3 * values
            else:
                values = (0.5 if name == "pos_embed" else 0.1) * values
            parameter.copy_(torch.from_numpy(values).float().reshape(parameter.shape))
