"""Number formats: their names, and how a network computes in one of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from streampetr_vit.errors import InputError

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def half_precision_of(device_type: str) -> str:
    """The half precision that suits a device: "bf16", or "fp16" on a GPU without bfloat16."""
    # Without the argument torch counts GPUs that emulate it too, many times slower than float32.
    has_bf16 = device_type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp16"


def autocast(
    precision: str | None, device_type: str, cache_enabled: bool = True
) -> AbstractContextManager:
    """The context in which a model is called for a precision.

    Args:
        precision: "float32", "bf16" or "fp16", whatever surrounds it; None is what surrounds it.
        device_type: "cpu" or "cuda".
        cache_enabled: keep weights that were cast until the outermost context ends.

    Raises:
        InputError: unknown precision, or one that this device does not have.
    """
    if precision is None:
        return nullcontext()
    if precision not in DTYPES:
        raise InputError(
            f"precision {precision!r} is unknown: allowed are {', '.join(map(repr, DTYPES))}"
        )
    if precision == "bf16" and half_precision_of(device_type) != "bf16":
        raise InputError(
            "precision 'bf16': this GPU has no bfloat16 (it came with compute capability 8.0); use "
            "'fp16'"
        )
    if precision == "float32":
        # Not nullcontext: an ambient autocast would go on. Other devices have none.
        known = device_type in ("cpu", "cuda")
        return torch.autocast(device_type, enabled=False) if known else nullcontext()
    return torch.autocast(device_type, DTYPES[precision], cache_enabled=cache_enabled)


def cast_weights(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Casts the weights and biases of linear and convolutional layers, in place.

    For inference under autocast to the same dtype, with the same results. The layers can no longer
    be trained or called in float32.

    Args:
        backbone: in evaluation mode.
        dtype: torch.bfloat16 or torch.float16.

    Raises:
        ValueError: the backbone is in training mode.
    """
    if backbone.training:
        raise ValueError(
            "the backbone is in training mode: cast_weights is for inference, call eval()"
        )
    for layer in backbone.modules():
        # The layers that autocast would cast in every call. Norms stay float32.
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
