"""The device and the precision that a detector is used with."""

from __future__ import annotations

import re

import torch

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.ops.precision import DTYPES, autocast, half_precision_of
from streampetr_vit.texts import shown


def device_of(name: str | torch.device) -> torch.device:
    """The device of a name; torch's current device stays as it is.

    Args:
        name: "auto" (the current GPU if there is one, else the CPU), "cpu", "cuda" (the current
            GPU) or "cuda:N".

    Raises:
        InputError: unknown name, or a GPU that is not there.
    """
    text = str(name)
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", text):
        raise InputError(
            f'device={shown(text)} is unknown: allowed are "auto", "cpu", "cuda" and "cuda:N"'
        )
    if text == "cpu" or (text == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(
            f"device={text!r}, but torch {torch.__version__} sees no GPU: give cpu, or install a "
            "CUDA build of torch and check the driver"
        )
    index = int(text.partition(":")[2] or torch.cuda.current_device())
    if index >= torch.cuda.device_count():
        raise InputError(
            f"device={text!r}, but torch sees {torch.cuda.device_count()} GPU(s), counted from 0: "
            "choose one of them"
        )
    return torch.device("cuda", index)


def precision_of(name: str, device: torch.device) -> str:
    """A key of `DTYPES` that the device has.

    Args:
        name: a key of `DTYPES`; or "auto": bf16 on a GPU that has it, else float32.
        device: of the detector.

    Raises:
        InputError: unknown name, or a precision that the device does not have.
    """
    if name == "auto":
        on_gpu = device.type == "cuda"
        return "bf16" if on_gpu and half_precision_of("cuda") == "bf16" else "float32"
    if name not in DTYPES:
        allowed = ", ".join(("auto", *DTYPES))
        raise InputError(f"precision={shown(name)} is unknown: allowed are {allowed}")
    autocast(name, device.type)  # refuses what the device does not have
    return name
