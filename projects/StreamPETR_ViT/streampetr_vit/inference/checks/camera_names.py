"""What the name of a camera says of the direction in which it looks."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.texts import name_list

FloatArray = NDArray[np.float64]

_ASIDE = 0.3  # a smaller part of a viewing direction says nothing


def contradicts(name: str, look: FloatArray) -> bool:
    """Whether a camera's name has a word for another direction than the one it looks in.

    Args:
        name: of the camera.
        look: (2,) part of its viewing direction along the vehicle's x (forward) and y (left).
    """
    length = float(np.hypot(*look))
    if length < _ASIDE:  # it looks down to the road
        return False
    parts, (ahead, left) = directions_in(name), look / length
    fore = ("front" in parts or "forward" in parts) - ("back" in parts or "rear" in parts)
    side = ("left" in parts) - ("right" in parts)
    # With one word for the length of the car alone it is not to the side. "left" and "right" may
    # also be a stereo pair.
    least = _ASIDE if side == 0 else -_ASIDE
    return bool((fore and fore * ahead < least) or (side and side * left < -_ASIDE))


def directions_in(name: str) -> set[str]:
    """The words for directions in a camera's name."""
    return set(re.findall("front|forward|back|rear|left|right", name.lower()))


def camera_list(names: Iterable[str]) -> str:
    """Names of cameras for a message."""
    names = list(names)
    return f"camera{'s' if len(names) > 1 else ''} {name_list(names)}"
