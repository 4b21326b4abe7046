"""How far a scene is played, and what was counted on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streampetr_vit.errors import InputError
from streampetr_vit.texts import shown

ANEW = "choose another --out, or begin anew with --overwrite"
_FIRST = 5  # broken pictures that are named


@dataclass
class SceneProgress:
    """How far a scene is played, and what was counted on the way.

    Attributes:
        frames: how many frames are done.
        complete: whether it is played to its end.
        scene_starts: frames that used nothing of earlier ones.
        missing_pictures: cameras that a frame had no picture of, over all frames; broken ones
            count.
        bad_pictures: broken pictures that were left out.
        first_bad: texts about the first of them.
    """

    frames: int = 0
    complete: bool = False
    scene_starts: int = 0
    missing_pictures: int = 0
    bad_pictures: int = 0
    first_bad: list[str] = dataclasses.field(default_factory=list)

    def count_bad(self, texts: Sequence[str]) -> None:
        """Counts broken pictures."""
        self.bad_pictures += len(texts)
        self.first_bad = [*self.first_bad, *texts][:_FIRST]

    def add(self, other: SceneProgress) -> None:
        """Adds the counts of another scene."""
        self.frames += other.frames
        self.scene_starts += other.scene_starts
        self.missing_pictures += other.missing_pictures
        bad = self.bad_pictures + other.bad_pictures
        self.count_bad(other.first_bad)
        self.bad_pictures = bad


def progress_of(values: Any) -> SceneProgress:
    """The progress that a file holds.

    Raises:
        InputError: the values are none of a progress.
    """
    usual = dataclasses.asdict(SceneProgress())
    is_one = isinstance(values, dict) and values.keys() == usual.keys()
    if not is_one or any(type(values[key]) is not type(usual[key]) for key in usual):
        raise InputError(f"the progress of an earlier start is {shown(values)}: {ANEW}")
    return SceneProgress(**values)
