"""Time and memory: laps of one run, calls side by side, and what is said about the samples."""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Divides a run on a device into laps, without stopping the device between them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, Any]] = []

    def start(self) -> None:
        """Forgets all laps and begins the first, with the device idle."""
        wait_for(self._device)
        self._marks = []
        self.lap("")

    def lap(self, name: str) -> None:
        """Ends a lap. Laps of one name add up."""
        if self._device.type == "cuda":
            # An event in the stream: time in which the device waits for the host counts as well.
            mark = torch.cuda.Event(enable_timing=True)
            mark.record()
        else:
            mark = time.perf_counter()
        self._marks.append((name, mark))

    def seconds(self) -> dict[str, float]:
        """The laps by name, in the order of their first end; waits for the device."""
        wait_for(self._device)
        laps: dict[str, float] = {}
        for (_, begin), (name, end) in pairwise(self._marks):
            seconds = end - begin if isinstance(end, float) else 1e-3 * begin.elapsed_time(end)
            laps[name] = laps.get(name, 0.0) + seconds
        return laps


class PeakMemory:
    """The most memory in use since this was made.

    On a GPU what torch has allocated; on a CPU the resident memory of the process (Linux only:
    elsewhere it is unknown).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            return
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # gives free memory back to the system
        with suppress(OSError):  # where Linux refuses this, the peak is that of the whole process
            Path("/proc/self/clear_refs").write_text("5")

    def gib(self) -> float | None:
        """Peak in GiB; None where it is unknown."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**30
        status = Path("/proc/self/status")
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
        return None if found is None else int(found[1]) / 2**20


def call_seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, from an idle device to an idle device."""
    wait_for(device)
    start = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - start


def alternately(
    functions: Sequence[Callable[[], object]],
    device: torch.device,
    timed: int,
    warmup: int = 1,
) -> list[list[float]]:
    """Times calls in turns, A B A B, so that a machine's moods meet all of them.

    Args:
        functions: to call.
        device: that their work runs on.
        timed, warmup: turns that count, and turns before them.

    Returns:
        For each function the seconds of its timed calls.
    """
    samples: list[list[float]] = [[] for _ in functions]
    for turn in range(warmup + timed):
        for index, function in enumerate(functions):
            seconds = call_seconds(function, device)
            if turn >= warmup:
                samples[index].append(seconds)
    return samples


def median(samples: Sequence[float]) -> float:
    """The middle of the samples."""
    return float(np.median(samples))


def time_row(
    seconds: Sequence[float], tflop: float = 0.0, peak_tflops: float = 0.0
) -> dict[str, float]:
    """Columns of a table for one thing that was timed.

    Args:
        seconds: of each run.
        tflop: useful TFLOP of a run; 0 where they are not counted.
        peak_tflops: TFLOP/s of the machine; 0 leaves out the share of it.
    """
    p50, p90 = np.percentile(seconds, (50, 90)).tolist()
    row = {"p50_ms": 1e3 * p50, "p90_ms": 1e3 * p90}
    if tflop and p50:
        row |= {"tflop": tflop, "tflops": tflop / p50}
        if peak_tflops:
            row["share_of_peak"] = tflop / (p50 * peak_tflops)
    return row
