"""Linear layers that use the quicker of a CPU's two matrix libraries.

PyTorch multiplies float32 matrices on x86 with MKL, which on AMD processors reaches about half of
what oneDNN, the other library in every PyTorch, does (docs/performance.md has the numbers). Half
precision goes to oneDNN by itself; nothing changes on GPUs.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Below so many multiplications the call itself costs more than the product.
_WORTH_IT = 1 << 20
# Private to torch, so that a version may not have it.
ONEDNN_PRODUCT = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
ONEDNN_USABLE = (
    ONEDNN_PRODUCT is not None
    and torch.backends.mkldnn.is_available()
    and platform.machine() in ("x86_64", "AMD64")
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias of x (..., I), weight (O, I), bias (O,); torch's, up to rounding."""
    if not _goes_to_onednn(x, weight):
        return functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias) if t is not None):
        return _OneDNNLinear.apply(x, weight, bias)
    return onednn_product(x, weight, bias)


def padded_linear(x: Tensor, weight: Tensor, bias: Tensor | None, pad_to: int) -> Tensor:
    """`linear`, with zeros behind each output up to a multiple of `pad_to`: (..., O or more)."""
    below = -len(weight) % pad_to
    if below:  # the weights are copied: worth it where the product is large and quick, on a GPU
        weight = functional.pad(weight, (0, 0, 0, below))
        bias = None if bias is None else functional.pad(bias, (0, below))
    return linear(x, weight, bias)


class Linear(nn.Linear):
    """torch's linear layer through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias)


def _goes_to_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        ONEDNN_USABLE
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= _WORTH_IT
        and not torch.compiler.is_compiling()  # which chooses its own libraries
        and not torch.jit.is_tracing()  # which does not know the operator
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
    )


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` by oneDNN, without gradients; only where `ONEDNN_USABLE`."""
    assert ONEDNN_PRODUCT is not None
    return ONEDNN_PRODUCT(x, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    """oneDNN's operator has no derivative of its own; this is that of x weight^T + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return onednn_product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows, inputs = (t.reshape(-1, t.shape[-1]) for t in (grad, x))  # (n, O), (n, I)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = onednn_product(rows, weight.t(), None).view_as(x)
        if ctx.needs_input_grad[1]:
            grad_weight = onednn_product(rows.t(), inputs.t(), None)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias
