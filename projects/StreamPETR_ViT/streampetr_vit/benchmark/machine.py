"""What a measurement was made on."""

from __future__ import annotations

import platform
import re
import shlex
import sys
import time
from pathlib import Path

import torch

from streampetr_vit.errors import InputError


def use_threads(threads: int | None) -> None:
    """Sets torch's CPU threads; None leaves torch's choice.

    Raises:
        InputError: fewer than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"--threads must be 1 or more, not {threads}")
    torch.set_num_threads(threads)


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Hardware, versions, date and command of this process, for people and for JSON."""
    return {
        "device": device.type,
        "processor": processor_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def processor_name(device: torch.device) -> str:
    """The name of the GPU, or of the CPU as the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
