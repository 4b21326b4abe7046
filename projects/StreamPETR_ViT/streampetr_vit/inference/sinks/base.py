"""What every sink of objects has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from streampetr_vit.structures import Moment, Objects
from streampetr_vit.texts import file_name


@dataclass(frozen=True)
class Scene:
    """A scene that is played.

    Attributes:
        index: its place among the scenes, from 0.
        name: of it.
        frames: how many are played.
        frames_per_second: of its moments.
    """

    index: int
    name: str
    frames: int
    frames_per_second: float = 10.0

    @property
    def label(self) -> str:
        """A name for files, which no other scene has."""
        return f"{self.index:04d}_{file_name(self.name)}"


class Sink(Protocol):
    """Takes the objects of scenes, frame by frame.

    Attributes:
        can_append: whether it can go on in the middle of a scene, in another process. A sink that
            cannot is given the scene from its start again.
    """

    can_append: bool

    def open_scene(self, scene: Scene, done: int) -> None:
        """Begins a scene, or goes on behind its first `done` frames."""

    def write(self, moment: Moment, objects: Objects) -> None:
        """Takes the next frame.

        Args:
            moment: its pictures are None for the cameras that were not used.
            objects: of it.
        """

    def save(self) -> None:
        """Brings what it has taken to the disk, if it can append."""

    def close_scene(self) -> None:
        """Ends a scene, all frames of which it has taken."""

    def abandon_scene(self) -> None:
        """Lets go of a scene that was stopped in the middle."""

    def finish(self, scenes: Sequence[Scene]) -> None:
        """Makes the files of all scenes, in one process, after all of them were played."""

    def outputs(self) -> Sequence[Path]:
        """Files and folders that it makes, whether they are there or not."""
