"""Activation checkpointing that keeps what is costly to recompute."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from streampetr_vit.modeling.ops.linear import ONEDNN_PRODUCT

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution")
_ATTENTIONS = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
# Overloads that this torch has; a name that it has not cannot occur either.
_KEPT = {
    operator.default
    for name in (*_PRODUCTS, *_ATTENTIONS)
    if (operator := getattr(torch.ops.aten, name, None)) is not None
}
if ONEDNN_PRODUCT is not None:  # the products of `ops.linear` on a CPU
    _KEPT.add(ONEDNN_PRODUCT.default)


def keep_products() -> Any:
    """For `torch.utils.checkpoint`: keeps matrix products and attentions, recomputes the rest."""
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if operator in _KEPT:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
