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

from streampetr_vit.errors import InputError

# (query, key, value, mask, dropout). As torch's, a bool mask says who may attend, another is added.
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]


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
        key, value: (B, h, m, D), dtype of `query`.
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
    mask = None if blocked is None else ~blocked
    if bias is not None:  # one mask for both: what is blocked becomes a logit of -inf
        mask = bias if blocked is None else bias.masked_fill(blocked, float("-inf"))
    return KERNELS[kernel](query, key, value, mask, dropout_p)


def attention_with_lse(
    query: Tensor, key: Tensor, value: Tensor, *, kernel: str = "sdpa"
) -> tuple[Tensor, Tensor] | None:
    """Attention (B, h, n, D) and the log-sum-exp (B, h, n) of its scaled logits, no gradients.

    The latter is float32 (float64 for float64). None if the kernel does not tell it here.
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


def _math(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, h, n, m)
    if mask is not None:
        is_bool = mask.dtype == torch.bool
        logits = logits.masked_fill(~mask, float("-inf")) if is_bool else logits + mask
    # Half-precision exponentials would lose the small weights: normalise in float32 at least.
    weights = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return functional.dropout(weights.to(value.dtype), dropout) @ value


def _sdpa(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(query.dtype)  # torch wants it so
    return functional.scaled_dot_product_attention(query, key, value, mask, dropout)


def _xformers(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    if mask is not None:
        raise InputError('attention kernel "xformers" takes no bias and no mask; use "sdpa"')
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise InputError(
            'attention kernel "xformers" needs the package xformers; install it, or use "sdpa"'
        ) from error
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))  # (B, n, h, D)
    return memory_efficient_attention(q, k, v, p=dropout).transpose(1, 2)  # (B, h, n, D)


KERNELS: dict[str, Kernel] = {"math": _math, "sdpa": _sdpa, "xformers": _xformers}
