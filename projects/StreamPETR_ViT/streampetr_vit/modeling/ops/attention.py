"""Scaled dot-product attention behind one function, with several kernels.

`"math"` is the specification, which every other kernel must agree with. `"sdpa"` is PyTorch's fused
`scaled_dot_product_attention`, `"xformers"` the kernel of the package of that name.

Shape letters: B batch, h heads, n queries, m keys, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, float], Tensor]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | None = None,
    blocked: Tensor | None = None,
    dropout_p: float = 0.0,
    kernel: str = "sdpa",
) -> Tensor:
    """softmax(query key^T / sqrt(D) + bias) value, over the keys that are not blocked.

    Args:
        query: (B, h, n, D), any float dtype.
        key: (B, h, m, D), dtype of `query`.
        value: (B, h, m, D), dtype of `query`.
        bias: float, broadcastable to (B, h, n, m); added to the scaled logits.
        blocked: bool, broadcastable to (B, h, n, m); True = this query may not attend to this key.
            Every query needs at least one key that is not blocked.
        dropout_p: probability in [0, 1) of dropping an attention weight; applied whenever it is
            positive, so callers pass 0 in evaluation.
        kernel: one of `KERNELS`.

    Returns:
        (B, h, n, D), dtype of `value`.

    Raises:
        ValueError: unknown kernel.
        TypeError: `blocked` is not boolean (a float mask belongs in `bias`).
    """
    if kernel not in KERNELS:
        raise ValueError(f"attention kernel {kernel!r} is unknown; use one of {sorted(KERNELS)}")
    if blocked is not None and blocked.dtype != torch.bool:
        raise TypeError(
            f"blocked must be a bool mask (True = may not attend), got {blocked.dtype}; "
            "pass additive float logits as bias"
        )
    return KERNELS[kernel](query, key, value, bias, blocked, dropout_p)


def attention_with_lse(
    query: Tensor, key: Tensor, value: Tensor, *, kernel: str = "sdpa"
) -> tuple[Tensor, Tensor] | None:
    """Attention and the log-sum-exp of its scaled logits, without gradients.

    Returns:
        (B, h, n, D) and (B, h, n) float32 (float64 for float64), or None if the kernel does not
        tell the latter here.
    """
    if kernel == "math":
        scaled = query * query.shape[-1] ** -0.5  # as in `_math`, which does not tell its logits
        logits = (scaled @ key.transpose(-1, -2)).to(
            torch.promote_types(query.dtype, torch.float32)
        )
        return attention(query, key, value, kernel=kernel), logits.logsumexp(-1)
    # On a GPU torch's public function does not tell it either.
    if kernel == "sdpa" and _CPU_FLASH is not None and query.device.type == "cpu":
        out, lse = _CPU_FLASH(query, key, value)
        return out, lse
    return None


# What scaled_dot_product_attention calls on CPUs; torch has no public name for it with its second
# result.
_CPU_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def _math(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    blocked: Tensor | None,
    dropout_p: float,
) -> Tensor:
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, h, n, m)
    if bias is not None:
        logits = logits + bias
    if blocked is not None:
        logits = logits.masked_fill(blocked, float("-inf"))
    # Half-precision exponentials would lose the small weights: normalise in float32 at least.
    weights = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return functional.dropout(weights.to(value.dtype), dropout_p) @ value


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    blocked: Tensor | None,
    dropout_p: float,
) -> Tensor:
    mask = None if blocked is None else ~blocked  # PyTorch's boolean masks say who may attend
    if bias is not None:  # torch takes one mask: what is blocked becomes a logit of -inf
        mask = bias.to(query.dtype)
        if blocked is not None:
            mask = mask.masked_fill(blocked, float("-inf"))
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout_p
    )


def _xformers(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    blocked: Tensor | None,
    dropout_p: float,
) -> Tensor:
    if bias is not None or blocked is not None:
        raise ValueError('attention kernel "xformers" takes no bias and no mask; use "sdpa"')
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise ImportError(
            'attention kernel "xformers" needs the package xformers; install it, or use "sdpa"'
        ) from error
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))  # (B, n, h, D)
    return memory_efficient_attention(q, k, v, p=dropout_p).transpose(1, 2)  # (B, h, n, D)


KERNELS: dict[str, Kernel] = {"math": _math, "sdpa": _sdpa, "xformers": _xformers}
