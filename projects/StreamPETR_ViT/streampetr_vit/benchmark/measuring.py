"""Time and memory of what runs on a device, and the rows of numbers that come of it.

The unit of a column is in its name.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import re
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.benchmark import timer  # waits until a GPU has done all that it was given

Row = dict[str, Any]
Tables = dict[str, list[Row]]  # by title


class Stopwatch:
    """Divides a run on a device into laps, without stopping the device between them."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def start(self) -> None:
        """Forgets all laps and begins the first, with the device idle."""
        timer()
        self._marks = []
        self.lap("")

    def lap(self, name: str) -> None:
        """Ends a lap. Laps of one name add up."""
        if self._on_gpu:
            # An event in the stream: time in which the device waits for the host counts as well.
            mark = torch.cuda.current_stream().record_event(torch.cuda.Event(enable_timing=True))
        else:
            mark = time.perf_counter()
        self._marks.append((name, mark))

    def attach(self, module: nn.Module, before: str = "", after: str = "") -> None:
        """From now on ends laps of these names where a module's forward begins and ends."""
        if before:
            module.register_forward_pre_hook(lambda *_: self.lap(before))
        if after:
            module.register_forward_hook(lambda *_: self.lap(after))

    def seconds(self) -> dict[str, float]:
        """The laps by name, in the order of their first end; waits for the device."""
        timer()
        laps: dict[str, float] = defaultdict(float)
        for (_, begin), (name, end) in pairwise(self._marks):
            laps[name] += 1e-3 * begin.elapsed_time(end) if self._on_gpu else end - begin
        return dict(laps)


class PeakMemory:
    """The most memory in use since this was made.

    On a GPU what torch has allocated; on a CPU the resident memory of the process (Linux only).
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
        found = _in_file("/proc/self/status", r"VmHWM:\s+(\d+) kB")
        return None if found is None else int(found) / 2**20


def alternately(
    functions: Sequence[Callable[[], object]], repeats: int, warmup: int = 1
) -> list[list[float]]:
    """For each function the seconds of `repeats` calls; before them come `warmup` calls."""
    samples: list[list[float]] = [[] for _ in functions]
    for _ in range(warmup + repeats):
        # In turns, A B A B: a machine's moods meet all of them.
        for function, own in zip(functions, samples, strict=True):
            start = timer()
            function()
            own.append(timer() - start)
    return [own[warmup:] for own in samples]


def time_row(seconds: Sequence[float], tflop: float = 0.0, peak_tflops: float = 0.0) -> Row:
    """Columns for one thing that was timed.

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


def stage_rows(
    runs: Sequence[Mapping[str, float]], tflop: Mapping[str, float], peak_tflops: float
) -> list[Row]:
    """A row for each stage: its share of the time of all runs, and `time_row`.

    Args:
        runs: seconds of the stages of each; a stage that a run lacks took none.
        tflop, peak_tflops: see `time_row`; tflop of the stages in which they are counted.
    """
    rows, whole = [], sum(sum(run.values()) for run in runs)
    for stage in dict.fromkeys(stage for run in runs for stage in run):
        seconds = [run.get(stage, 0.0) for run in runs]
        times = time_row(seconds, tflop.get(stage, 0.0), peak_tflops)
        rows.append({"stage": stage, "share": sum(seconds) / whole, **times})
    return rows


def relative_difference(values: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest magnitude of what is expected."""
    smallest = torch.finfo(torch.float32).tiny  # where all is zero
    difference = (values.float() - expected.float()).abs().max()
    return float(difference / expected.float().abs().max().clamp(min=smallest))


def row_or_error(measure: Callable[[], Row]) -> Row:
    """A measurement's row, or one with its error (not enough memory, say)."""
    try:
        return measure()
    except (RuntimeError, ValueError, TypeError) as error:
        first_line = next(iter(str(error).strip().splitlines()), "no message")
        return {"error": f"{type(error).__name__}: {first_line}"}


def as_text(tables: Tables) -> str:
    """Tables for a terminal."""
    options = {"headers": "keys", "floatfmt": ".4g", "missingval": "-"}
    return "\n\n".join(f"{title}\n{tabulate(rows, **options)}" for title, rows in tables.items())


def describe_machine(device: torch.device) -> Row:
    """Hardware, versions, date and command of this process."""
    cpu = _in_file("/proc/cpuinfo", r"(?m)^model name\s*:\s*(.+)$") or platform.machine()
    return {
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _in_file(path: str, pattern: str) -> str | None:
    """The first group of a pattern, in a file that Linux has and others may not."""
    found = re.search(pattern, Path(path).read_text()) if Path(path).exists() else None
    return None if found is None else found[1]
