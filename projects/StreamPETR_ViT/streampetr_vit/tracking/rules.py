"""What the rules of the trackers have in common: radii, and checks of what a user may set."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.errors import InputError
from streampetr_vit.texts import name_list, shown

# Source: StreamPETR's tracker.
UNIFORM_RADIUS_M = 2.5
# Source: CenterPoint's tracker.
PER_CLASS_RADII_M = {
    "bicycle": 3.0,
    "bus": 5.5,
    "car": 4.0,
    "motorcycle": 13.0,
    "pedestrian": 1.0,
    "trailer": 3.0,
    "truck": 4.0,
}


def radii_of(kinds: Sequence[str], radii: str | Mapping[str, float]) -> NDArray[np.float32]:
    """(k,) metres for the k kinds. `radii` as in `GreedyRules`.

    Raises:
        InputError: a radius is of no kind.
    """
    if isinstance(radii, str):
        named: Mapping[str, float] = {"uniform": {}, "per_class": PER_CLASS_RADII_M}[radii]
    else:
        named = radii
        unknown = [name for name in radii if name not in kinds]
        if unknown:
            raise InputError(
                f"tracker: radii has {name_list(map(shown, unknown))}; the kinds that are tracked "
                f"are {', '.join(kinds)}"
            )
    return np.array([named.get(kind, UNIFORM_RADIUS_M) for kind in kinds], dtype=np.float32)


def checked_radii(radii: object) -> str | dict[str, float]:
    """The same radii; a dict of plain ones where a config file has one of its own kind.

    Raises:
        InputError: they are not as in `GreedyRules`.
    """
    if isinstance(radii, Mapping):
        for kind, radius in radii.items():
            if not _is_number(radius) or not 0 < radius < math.inf:
                raise _wrong(f"radii[{shown(kind)}]", radius, "metres above 0")
        return dict(radii)
    if not isinstance(radii, str) or radii not in ("uniform", "per_class"):
        raise _wrong("radii", radii, '"uniform", "per_class", or metres by kind')
    return radii


def check_number(
    name: str, value: object, allowed: str, least: float = 0.0, most: float = math.inf
) -> None:
    """Raises InputError, which says what is `allowed`, unless it is a finite number in between."""
    if not _is_number(value) or not least <= value <= most or math.isinf(value):
        raise _wrong(name, value, allowed)


def check_whole(name: str, value: object) -> None:
    """Raises InputError unless it is a whole number from 1 on."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise _wrong(name, value, "a whole number from 1 on")


def check_flag(name: str, value: object) -> None:
    """Raises InputError unless it is true or false."""
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises InputError unless it is one of the choices."""
    if value not in choices:
        raise _wrong(name, value, " or ".join(f'"{choice}"' for choice in choices))


def _is_number(value: object) -> bool:
    # numpy's numbers too, which a user's own arithmetic gives.
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _wrong(name: str, value: object, allowed: str) -> InputError:
    return InputError(f"tracker: {name} is {shown(value)}; it must be {allowed}")
