"""Sinks by the words of a command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streampetr_vit.errors import InputError
from streampetr_vit.inference.sinks.base import Sink
from streampetr_vit.inference.sinks.drawings import Drawer, Pictures, recordings, videos
from streampetr_vit.inference.sinks.line_sinks import NuScenesResults, ObjectLines, TrackingResults
from streampetr_vit.tracking.building import TRACKER_NAMES


@dataclass(frozen=True)
class SinkOptions:
    """What sinks are made with.

    Attributes:
        out: folder of the results.
        parts: folder of what is joined in the end.
        min_score: weaker objects are left out of files of objects.
        score_threshold: weaker objects are left out of drawings.
    """

    out: Path
    parts: Path
    min_score: float = 0.0
    score_threshold: float = 0.25


_MAKERS: dict[str, Callable[[SinkOptions], Sink]] = {
    "json": lambda o: ObjectLines(o.out / "objects.jsonl", o.parts, o.min_score),
    "nuscenes": lambda o: NuScenesResults(o.out / "results_nusc.json", o.parts, o.min_score),
    "tracking": lambda o: TrackingResults(o.out / "tracking_nusc.json", o.parts, o.min_score),
    "video": lambda o: videos(o.out / "videos", Drawer(o.score_threshold)),
    "png": lambda o: Pictures(o.out / "pictures", Drawer(o.score_threshold)),
    "rrd": lambda o: recordings(o.out / "rerun", o.score_threshold),
}
SINK_NAMES = tuple(_MAKERS)
NEED_IDS = ("tracking",)  # of those: they make nothing without a tracker


def build_sinks(names: Sequence[str], options: SinkOptions) -> list[Sink]:
    """A sink for each of some of `SINK_NAMES`, each once, in the order of those."""
    return [make(options) for name, make in _MAKERS.items() if name in names]


def check_sinks(names: Sequence[str], tracker: object) -> None:
    """Checks some of `SINK_NAMES` before anything is loaded.

    Args:
        names: of the sinks.
        tracker: what gives the objects ids; None for nothing.

    Raises:
        InputError: one of them needs ids, and there is no tracker.
    """
    needy = [name for name in names if name in NEED_IDS]
    if needy and tracker is None:
        raise InputError(
            f"--write {needy[0]} needs objects with ids: add "
            f"{' or '.join(f'--tracker {name}' for name in TRACKER_NAMES)}, or leave {needy[0]} out"
        )
