"""Attention in zero-padded windows, without the padding.

A padded token of the plain form has the key 0 and the value v (the bias of the value projection),
and is not masked. For a query whose logits over the r real keys of its window have the log-sum-exp
L, and whose attention over them is o, the p padded keys add p to the softmax's denominator and p v
to its numerator:

    out = g o + (1 - g) v,    g = exp(L) / (exp(L) + p) = sigmoid(L - log p)

That is exact, and is what inference does with kernels that tell L.

Tokens are in window order (`backbone.windows`): n tokens, h heads, D head dimension; W windows of r
tokens in a group.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from streampetr_vit.modeling.backbone.windows import WindowLayout
from streampetr_vit.modeling.ops.attention import attention, attention_with_lse
from streampetr_vit.modeling.ops.ragged_attention import RAGGED_KERNELS


def window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pad_value: Tensor | None,
    layout: WindowLayout,
    kernel: str = "sdpa",
) -> Tensor:
    """Attention of every token to the tokens, and the padding, of its window.

    Args:
        query, key, value: (n, h, D) in window order.
        pad_value: (h, D), value of a padded token; None for 0.
        kernel: of `ops.attention.KERNELS`, or of `RAGGED_KERNELS`, which have no gradients.

    Returns:
        (n, h, D), dtype of `value`.
    """
    v_pad = value.new_zeros(value.shape[1:]) if pad_value is None else pad_value.to(value.dtype)
    if kernel in RAGGED_KERNELS:  # all windows, whatever their lengths, in one call
        out, lse = RAGGED_KERNELS[kernel](query, key, value, layout.starts, layout.longest)
        return _blend(out, lse, v_pad, layout.log_padded)
    outputs = []
    for group, places in layout.slices():  # one call for each shape of windows: four at most
        q, k, v = (  # (W * r, h, D) -> (W, h, r, D), a view
            x[places].unflatten(0, (group.windows, group.tokens)).transpose(1, 2)
            for x in (query, key, value)
        )
        out = _padded_attention(q, k, v, v_pad, group.padded, kernel)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # (W * r, h, D)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _padded_attention(
    query: Tensor, key: Tensor, value: Tensor, pad_value: Tensor, padded: int, kernel: str
) -> Tensor:
    """Attention (W, h, r, D) in windows of one shape, with p = `padded` tokens of each."""
    if padded == 0:
        return attention(query, key, value, kernel=kernel)
    if torch.compiler.is_exporting():
        return _with_one_key(query, key, value, pad_value, padded)
    if not torch.is_grad_enabled():
        found = attention_with_lse(query, key, value, kernel=kernel)
        if found is not None:
            return _blend(*found, pad_value[:, None], math.log(padded))
    # Where gradients are needed, or the kernel does not tell L, the p padded keys are appended to
    # the real ones: (W, h, r, D) -> (W, h, r + p, D). Queries are never padded.
    windows, heads, _, dim = key.shape
    key = torch.cat((key, key.new_zeros(1, 1, 1, 1).expand(windows, heads, padded, dim)), dim=2)
    pads = pad_value[:, None].expand(windows, heads, padded, dim)
    return attention(query, key, torch.cat((value, pads), dim=2), kernel=kernel)


def _with_one_key(
    query: Tensor, key: Tensor, value: Tensor, pad_value: Tensor, padded: int
) -> Tensor:
    """`_padded_attention` by plain operators that every runtime has, whose masks it knows to fuse.

    p equal keys are one key whose logit is higher by log p.
    """
    windows, heads, tokens, dim = key.shape
    key = torch.cat((key, key.new_zeros(windows, heads, 1, dim)), dim=2)  # (W, h, r + 1, D)
    value = torch.cat((value, pad_value[:, None].expand(windows, heads, 1, dim)), dim=2)
    bias = query.new_tensor([0.0] * tokens + [math.log(padded)]).view(1, 1, 1, -1)
    return attention(query, key, value, bias=bias, kernel="sdpa")


def _blend(out: Tensor, lse: Tensor, pad_value: Tensor, log_padded: Tensor | float) -> Tensor:
    """g out + (1 - g) pad_value; lse has the shape of `out` without the last dimension."""
    gate = (lse - log_padded).sigmoid()[..., None].to(out.dtype)  # 1 without padding: log 0 = -inf
    return torch.lerp(pad_value.expand_as(out), out, gate)
