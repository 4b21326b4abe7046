"""Refuses half precisions that would spoil a training silently, before its first step."""

from __future__ import annotations

import torch
from torch import nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.decoder.attention import MultiHeadAttention
from streampetr_vit.modeling.ops.precision import half_precision_of

_SETTING = "model.head.decoder.cross_attention_precision"


def check_half_precision(model: nn.Module, precision: str) -> None:
    """Checks that a model can be trained in the precisions that were set.

    Args:
        model: on its device.
        precision: train.precision of the configuration.

    Raises:
        InputError: the attention is in fp16 without loss scaling, or something is in a bfloat16
            that the device does not have.
    """
    device_type = next(model.parameters()).device.type
    dtypes = {part.dtype for part in model.modules() if isinstance(part, MultiHeadAttention)}
    # Gradients below 6e-8 are 0 in float16. Loss scaling, which lifts them, comes with fp16 only.
    if torch.float16 in dtypes and precision != "fp16":
        raise InputError(
            f"{_SETTING}=fp16 needs train.precision=fp16, whose loss scaling keeps small "
            f"gradients from becoming 0, not {precision}: set train.precision=fp16, or "
            f"{_SETTING}=float32 (fp16 stays possible in evaluation)"
        )
    if torch.bfloat16 in dtypes and half_precision_of(device_type) != "bf16":
        raise InputError(
            f"{_SETTING}=bf16: this GPU has no bfloat16; set it to float32, or to fp16 together "
            "with train.precision=fp16"
        )
