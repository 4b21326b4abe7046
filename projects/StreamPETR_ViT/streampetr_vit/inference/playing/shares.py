"""Which scenes of a source are played, and by which of several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streampetr_vit.inference.sinks.base import Scene
from streampetr_vit.inference.sources.base import Source, rows_of


@dataclass(frozen=True)
class Worker:
    """Which of several processes this one is.

    Attributes:
        rank, count: its number, and how many there are.
        wait: returns when all processes are here.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None


ONE_PROCESS = Worker()


def choose_scenes(
    source: Source, names: Sequence[str] | None = None, most_frames: int | None = None
) -> list[Scene]:
    """Scenes of a source, in its order.

    Args:
        source: see there.
        names: of the scenes; None takes all.
        most_frames: how many frames of each are played at most.

    Raises:
        InputError: there is no scene of a name.
    """
    for name in names or ():
        rows_of(source.scenes, name)
    return [
        Scene(
            index,
            name,
            count if most_frames is None else min(count, most_frames),
            source.frames_per_second(name),
        )
        for index, (name, count) in enumerate(source.scenes)
        if names is None or name in names
    ]


def share(scenes: Sequence[Scene], worker: Worker) -> list[Scene]:
    """The scenes that one process plays, in order, so that all have about as many frames."""
    loads = [0] * worker.count
    mine = []
    for scene in sorted(scenes, key=lambda scene: (-scene.frames, scene.index)):
        rank = loads.index(min(loads))
        loads[rank] += scene.frames
        if rank == worker.rank:
            mine.append(scene)
    return sorted(mine, key=lambda scene: scene.index)
