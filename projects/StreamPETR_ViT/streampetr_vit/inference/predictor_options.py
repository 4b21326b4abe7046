"""Options of a predictor, checked before anything is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import numpy as np

from streampetr_vit.errors import InputError
from streampetr_vit.structures.sample_checks import LONGEST_GAP_S
from streampetr_vit.texts import name_list, nearest, shown


def check_names(kind: type, options: Iterable[str]) -> None:
    """Compares names of options with what a class takes beside its first argument.

    Raises:
        InputError: one is unknown; names the nearest.
    """
    _, *known = inspect.signature(kind).parameters
    for name in options:
        if name not in known:
            near = nearest(name, known)
            fix = f"did you mean {near[0]}?" if near else f"there are {name_list(known)}"
            raise InputError(f"the option {name} of a predictor is unknown: {fix}")


def check_seconds(max_gap_s: float, period_s: float) -> None:
    """Compares the longest gap within a scene with the time between remembered moments.

    Raises:
        InputError: they are no times that a memory can have.
    """
    for name, value in (("max_gap_s", max_gap_s), ("frame_period_s", period_s)):
        if not isinstance(value, (int, float, np.number)):
            raise InputError(f"{name} is {shown(value)}: give a number of seconds")
    if not 0 < max_gap_s <= LONGEST_GAP_S:
        raise InputError(f"max_gap_s={max_gap_s!r}: give seconds, up to {LONGEST_GAP_S}")
    if not 0 <= period_s < max_gap_s:
        raise InputError(
            f"frame_period_s={period_s!r} with max_gap_s={max_gap_s:g}: give seconds from 0 on, "
            "less than max_gap_s"
        )
