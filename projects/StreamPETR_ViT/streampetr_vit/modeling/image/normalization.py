"""Pictures as the network takes them."""

from __future__ import annotations

import torch
from torch import Tensor


def normalized(images: Tensor, mean: Tensor, std: Tensor, input_format: str) -> Tensor:
    """Normalises pictures (..., 3, H, W), uint8 RGB; float32 ones are normalised already.

    Args:
        mean, std: (3, 1, 1) float32 on the 0..255 scale, in the order of `input_format`.
        input_format: "RGB" or "BGR", the order of the channels that come out.
    """
    if images.dtype != torch.uint8:  # the mapper's; bytes travel to the device, not floats
        return images
    if input_format == "BGR":
        images = images.flip(-3)  # samples are RGB
    return (images.float() - mean) / std
