"""What every source of moments has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from streampetr_vit.errors import InputError
from streampetr_vit.structures import Moment
from streampetr_vit.texts import name_list, nearest, shown


class Source(Protocol):
    """Scenes of moments, in the order of time.

    Attributes:
        scenes: (name, number of frames) of each scene; no two have one name.
        description: what the moments are made of, as plain values, to tell two sources apart.
    """

    scenes: Sequence[tuple[str, int]]
    description: Mapping[str, object]

    def frames(self, scene: str, start: int = 0) -> Iterator[Moment]:
        """The moments of a scene.

        Args:
            scene: name of it.
            start: how many of its first moments are left out.

        Raises:
            InputError: there is no such scene.
        """

    def frames_per_second(self, scene: str) -> float:
        """How fast the frames of a scene were taken."""


def rate_of(timestamps_s: np.ndarray) -> float:
    """Frames per second of times (n,), by their median step; 1 for a single frame."""
    return 1.0 / float(np.median(np.diff(timestamps_s))) if len(timestamps_s) > 1 else 1.0


def rows_of(scenes: Sequence[tuple[str, int]], scene: str, start: int = 0) -> range:
    """Which rows a scene has, if all scenes lie behind one another.

    Args:
        scenes: (name, number of frames) of each.
        scene: name of one of them.
        start: how many of its first rows are left out.

    Raises:
        InputError: there is no such scene, or it has fewer rows.
    """
    first = 0
    for name, count in scenes:
        if name == scene:
            if not 0 <= start <= count:
                raise InputError(f"start {start}: scene {shown(scene)} has {count} frames")
            return range(first + start, first + count)
        first += count
    names = [name for name, _ in scenes]
    alike = dict.fromkeys([*nearest(scene, names), *names])  # what may be meant comes first
    raise InputError(f"scene {shown(scene)} is unknown; there are {name_list(alike)}")
