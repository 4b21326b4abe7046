"""Which kernel attends inside the windows of the ViT."""

from __future__ import annotations

import importlib.util
import logging
from functools import cache

import torch

from streampetr_vit.modeling.ops.attention import KERNELS
from streampetr_vit.modeling.ops.ragged_attention import RAGGED_KERNELS

logger = logging.getLogger(__name__)

AUTO = "auto"
KERNEL_NAMES = (AUTO, *sorted(KERNELS), *sorted(RAGGED_KERNELS))
_MODULES = {
    "varlen": "torch.nn.attention.varlen",
    "flash-attn": "flash_attn",
    "xformers": "xformers",
}


def why_not(kernel: str, device_type: str, dtype: torch.dtype) -> str | None:
    """Why a kernel, but "auto", cannot run here with tensors of a dtype; None if it can."""
    if kernel not in _MODULES:
        return None
    if importlib.util.find_spec(_MODULES[kernel]) is None:
        return f"{_MODULES[kernel]} is not installed"
    if device_type != "cuda":
        return "it needs a GPU"
    if kernel in RAGGED_KERNELS and torch.cuda.get_device_capability()[0] < 8:
        return "it needs a GPU of compute capability 8.0 or more"
    if kernel in RAGGED_KERNELS and dtype not in (torch.float16, torch.bfloat16):
        return f"it needs half precision, not {dtype}"
    return None


@cache  # so that each choice is logged once
def choose_kernel(wanted: str, device_type: str, dtype: torch.dtype, with_grad: bool) -> str:
    """The kernel that attends inside the windows.

    Args:
        wanted: one of `KERNEL_NAMES`; "auto" is the first that can run of: torch's variable-length
            attention, flash-attn, and torch's scaled_dot_product_attention, which always can. The
            first two leave gradients to the last.
        dtype: of query, key and value.

    Raises:
        ValueError: unknown kernel, or one that cannot run here.
    """
    if wanted not in KERNEL_NAMES:
        raise ValueError(f"attention kernel {wanted!r} is unknown; use one of {list(KERNEL_NAMES)}")
    candidates = [*RAGGED_KERNELS, "sdpa"] if wanted == AUTO else [wanted]  # quickest first
    if with_grad and candidates[0] in RAGGED_KERNELS:
        candidates = ["sdpa"]  # their log-sum-exp, which the padding needs, has no gradient
    problems = {kernel: why_not(kernel, device_type, dtype) for kernel in candidates}
    usable = [kernel for kernel, problem in problems.items() if problem is None]
    if not usable:
        raise ValueError(
            f"attention kernel {wanted!r} cannot run: {problems[wanted]}; set the ViT's xattn=True "
            "for the quickest that can"
        )
    chosen = usable[0]
    purpose = "training" if with_grad else "inference"
    logger.info("window attention in %s (%s, %s): %s", purpose, device_type, dtype, chosen)
    return chosen
