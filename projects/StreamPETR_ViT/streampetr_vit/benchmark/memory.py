"""Peak memory of a piece of work."""

from __future__ import annotations

import ctypes
import gc
import re
from contextlib import suppress
from pathlib import Path

import torch

GIB = 2**30
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """The most memory in use since `start`.

    On a GPU what torch has allocated; on a CPU the resident memory of the process (Linux only:
    elsewhere it is unknown). Where the system does not let the process reset its peak, that of the
    whole process stands.

    Args:
        device: that the work runs on.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self.start()

    def start(self) -> None:
        """Begins anew."""
        if self._on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return
        _give_back()
        try:
            _RESET.write_text("5")  # asks Linux to count the resident peak from now on
        except OSError:
            return

    def gib(self) -> float | None:
        """Peak in GiB; None where it is unknown."""
        if self._on_gpu:
            return torch.cuda.max_memory_allocated() / GIB
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
        return None if found is None else int(found[1]) * 1024 / GIB


def _give_back() -> None:
    """Returns memory that is free to the system, where the C library has a call for that."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
