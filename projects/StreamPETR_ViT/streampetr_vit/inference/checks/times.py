"""Tells the classic mistakes of a drive's times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.inference.continuity import MAX_GAP_S

FloatArray = NDArray[np.float64]

_UNITS = ((1e7, "nano", "1e9"), (1e4, "micro", "1e6"), (10.0, "milli", "1e3"))


def mistakes_of_times(timestamps_s: FloatArray) -> list[str]:
    """What looks wrong with the times of one drive, a line for each mistake.

    Args:
        timestamps_s: (n,) seconds.
    """
    if not np.isfinite(timestamps_s).all():
        frame = int(np.flatnonzero(~np.isfinite(timestamps_s))[0])
        return [f"frame {frame}: its time is {timestamps_s[frame]}: give seconds"]
    steps = np.diff(timestamps_s)
    if not len(steps):
        return []
    return _order(timestamps_s, steps) or _unit(steps) or _gaps(steps)


def can_give_speeds(timestamps_s: FloatArray) -> bool:
    """Whether times are in order and look like seconds."""
    steps = np.diff(timestamps_s)
    return bool((steps > 0).all()) and not _unit(steps)


def _order(times: FloatArray, steps: FloatArray) -> list[str]:
    lines = []
    for wrong, what, fix in (
        (steps < 0, "earlier than", "sort the frames by time"),
        (steps == 0, "the same as", "give each frame its own time, or leave it out"),
    ):
        if wrong.any():
            frame = int(np.flatnonzero(wrong)[0]) + 1
            count = f" ({wrong.sum()} such frames)" if wrong.sum() > 1 else ""
            lines.append(
                f"frame {frame}: its time {times[frame]:.6f} is {what} that of the frame before, "
                f"{times[frame - 1]:.6f}{count}: {fix}"
            )
    return lines


def _unit(steps: FloatArray) -> list[str]:
    step = float(np.median(steps))
    for least, unit, divisor in _UNITS:
        if step >= least:
            return [
                f"all frames: they are {step:.4g} seconds apart, which look like {unit}seconds: "
                f"divide the times by {divisor}"
            ]
    if step <= 1e-3:
        return [f"all frames: they are {step:.3g} seconds apart: give times in seconds"]
    return []


def _gaps(steps: FloatArray) -> list[str]:
    gaps = np.flatnonzero(steps > max(MAX_GAP_S, 3 * float(np.median(steps))))
    if not len(gaps):
        return []
    frame = int(gaps[0]) + 1
    more = f" ({len(gaps)} such gaps)" if len(gaps) > 1 else ""
    return [
        f"frame {frame}: it is {steps[frame - 1]:.1f} s after the frame before{more}: the memory "
        "starts anew there; add the frames that are missing, or start a new scene"
    ]
