"""Time: laps of one run, calls side by side, and what is said about the samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from streampetr_vit.errors import InputError


class Stopwatch:
    """Divides a run into laps without stopping the device between them.

    On a GPU a lap ends at an event in the stream, so that time in which the device waits for the
    host counts as well; on a CPU it ends at the clock.

    Args:
        device: that the work runs on.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []

    def start(self) -> None:
        """Forgets all laps and begins the first, with the device idle."""
        if self._on_gpu:
            torch.cuda.synchronize()
        self._marks = []
        self.lap("")

    def lap(self, name: str) -> None:
        """Ends a lap. Laps of one name add up."""
        if not self._on_gpu:
            self._marks.append((name, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append((name, event))

    def seconds(self) -> dict[str, float]:
        """The laps by name, in the order of their first end; waits for the device."""
        if self._on_gpu:
            torch.cuda.synchronize()
        laps: dict[str, float] = {}
        for (_, begin), (name, end) in zip(self._marks, self._marks[1:], strict=False):
            laps[name] = laps.get(name, 0.0) + _between(begin, end)
        return laps


def _between(begin: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(begin, float) or isinstance(end, float):
        assert isinstance(begin, float) and isinstance(end, float)
        return end - begin
    return 1e-3 * begin.elapsed_time(end)


@dataclass(frozen=True)
class Repeats:
    """How often something is run.

    Attributes:
        timed: runs that count.
        warmup: runs before them that do not.
    """

    timed: int = 10
    warmup: int = 2

    def __post_init__(self) -> None:
        if self.timed < 1 or self.warmup < 0:
            raise InputError(
                f"--repeats must be 1 or more and --warmup 0 or more, not {self.timed} and "
                f"{self.warmup}"
            )


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value that so many percent of the samples do not exceed, linear between two of them."""
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def call_seconds(function: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, from an idle device to an idle device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def alternately(
    functions: Sequence[Callable[[], object]],
    device: torch.device,
    repeats: Repeats,
    after: Callable[[int], object] | None = None,
) -> list[list[float]]:
    """Times calls in turns, A B A B, so that a machine's moods meet all of them.

    Args:
        functions: to call.
        device: that their work runs on.
        repeats: turns.
        after: called after each timed call, outside its time, with the function's index.

    Returns:
        For each function its seconds, without those of the warm-up.
    """
    samples: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats.warmup + repeats.timed):
        for index, function in enumerate(functions):
            seconds = call_seconds(function, device)
            if turn < repeats.warmup:
                continue
            samples[index].append(seconds)
            if after is not None:
                after(index)
    return samples
