"""Which kernel attends inside the windows of the ViT."""

from __future__ import annotations

import importlib
import logging
from functools import cache

import torch

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.ops.attention import KERNELS
from streampetr_vit.modeling.ops.ragged_attention import RAGGED_KERNELS

logger = logging.getLogger(__name__)

AUTO = "auto"
KERNEL_NAMES = (AUTO, *sorted(KERNELS), *sorted(RAGGED_KERNELS))
_MODULES = {
    "varlen": "torch.nn.attention.varlen",
    "flash-attn": "flash_attn",
    "xformers": "xformers.ops",
}


@cache  # a probe costs a call of the kernel
def why_not(kernel: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a kernel, but "auto", cannot run on a device with tensors of a dtype; None if it can."""
    if kernel not in _MODULES:
        return None
    if device.type != "cuda":
        return "it needs a GPU"
    if kernel == "varlen" and torch.version.hip:
        return "torch has it for NVIDIA's GPUs only"
    if kernel in RAGGED_KERNELS and torch.cuda.get_device_capability(device)[0] < 8:
        return "it needs a GPU of compute capability 8.0 or more"
    if kernel in RAGGED_KERNELS and dtype not in (torch.float16, torch.bfloat16):
        return f"it needs half precision, not {dtype}"
    return _import_problem(_MODULES[kernel]) or _call_problem(kernel, device, dtype)


def _import_problem(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            return f"{error.name} is not installed"
        return f"{module} does not import: {error}"
    # Built for another torch or CUDA, a package is there and does not load.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"{module} does not import: {_first_line(error)}"
    return None


def _call_problem(kernel: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a kernel fails with a few tokens; tried here, so that no frame has to fall back."""
    tokens = torch.zeros(16, 1, 64, dtype=dtype, device=device)  # (n, h, D)
    try:
        with torch.no_grad():
            if kernel in RAGGED_KERNELS:
                starts = torch.tensor([0, 6, 16], dtype=torch.int32, device=device)
                RAGGED_KERNELS[kernel](tokens, tokens, tokens, starts, 10)
            else:
                one = tokens.transpose(0, 1)[None]  # (n, h, D) -> (1, h, n, D)
                KERNELS[kernel](one, one, one, None, 0.0)
    # Whatever it is: a library of another version may lack a name, or take other arguments.
    except Exception as error:
        return f"it fails: {_first_line(error)}"
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@cache  # so that each choice is logged once
def choose_kernel(wanted: str, device: torch.device, dtype: torch.dtype, with_grad: bool) -> str:
    """The kernel that attends inside the windows.

    Args:
        wanted: one of `KERNEL_NAMES`; "auto" is the first that can run of: torch's variable-length
            attention, flash-attn, and torch's scaled_dot_product_attention, which always can. The
            first two leave gradients to the last.
        device, dtype: of query, key and value.

    Raises:
        InputError: unknown kernel, or one that cannot run here.
    """
    if wanted not in KERNEL_NAMES:
        raise InputError(f"attention kernel {wanted!r} is unknown; use one of {list(KERNEL_NAMES)}")
    candidates = [*RAGGED_KERNELS, "sdpa"] if wanted == AUTO else [wanted]  # quickest first
    if with_grad and candidates[0] in RAGGED_KERNELS:
        candidates = ["sdpa"]  # their log-sum-exp, which the padding needs, has no gradient
    problems = {kernel: why_not(kernel, device, dtype) for kernel in candidates}
    usable = [kernel for kernel, problem in problems.items() if problem is None]
    if not usable:
        raise InputError(
            f"attention kernel {wanted!r} cannot run: {problems[wanted]}; set the ViT's xattn=True "
            "for the quickest that can"
        )
    chosen = usable[0]
    purpose = "training" if with_grad else "inference"
    # On a GPU it matters which quicker one could not run, and why.
    skipped = [f"{name}: {problem}" for name, problem in problems.items() if problem is not None]
    reasons = f" ({'; '.join(skipped)})" if skipped and device.type == "cuda" else ""
    logger.info("window attention in %s (%s, %s): %s%s", purpose, device, dtype, chosen, reasons)
    return chosen
