"""Plays drives through a predictor into sinks; a second start goes on where the first one stopped.

Every now and then the state of the predictor and the number of finished frames are stored. What the
sinks have taken since then is cut off and made again, so that the files in the end are those of a
run that nothing has stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from streampetr_vit.inference.playing.ahead import ahead
from streampetr_vit.inference.playing.record import PlayRecord
from streampetr_vit.inference.playing.scene_progress import SceneProgress
from streampetr_vit.inference.playing.shares import ONE_PROCESS, Worker, share
from streampetr_vit.inference.preparation import NoPictureError
from streampetr_vit.inference.sinks.base import Scene, Sink
from streampetr_vit.inference.sinks.replay_log import ReplayLog
from streampetr_vit.inference.sources.base import Source
from streampetr_vit.structures import DatasetSpec, Detections, Moment, Objects
from streampetr_vit.structures.rigid import as_pose


class SceneReader(Protocol):
    """What detects in one moment after the other, such as a `Predictor`."""

    def prepare(self, moment: Moment) -> Any:
        """Reads the pictures of a moment; in other threads, ahead of time."""

    def detect(self, prepared: Sequence[Any]) -> list[Objects]:
        """Detects in one prepared moment, and remembers it."""

    def reset(self) -> None:
        """Begins a scene."""

    def save_state(self, path: Path) -> None:
        """Writes what it remembers."""

    def load_state(self, path: Path) -> None:
        """Goes on from there."""


@dataclass(frozen=True)
class Play:
    """All that is needed to play scenes.

    Attributes:
        source: of the moments.
        predictor: see `SceneReader`.
        sinks: take the objects.
        record: in the folder of the results.
        spec: classes of the objects.
        replay_min_score: weaker objects are not given to sinks that cannot append.
        save_seconds, save_frames: how often the state is stored: whatever comes first.
        shown: called with a number of frames that are done, and whether by an earlier start.
    """

    source: Source
    predictor: SceneReader
    sinks: Sequence[Sink]
    record: PlayRecord
    spec: DatasetSpec
    replay_min_score: float = 0.0
    save_seconds: float = 30.0
    save_frames: int = 1000
    shown: Callable[[int, bool], object] = lambda count, earlier: None


def play_scenes(
    play: Play,
    scenes: Sequence[Scene],
    settings: Mapping[str, Any],
    worker: Worker = ONE_PROCESS,
    overwrite: bool = False,
) -> SceneProgress:
    """Plays all scenes, goes on with those that an earlier start has begun, and joins the results.

    Args:
        play: with what.
        scenes: of its source.
        settings, overwrite: see `PlayRecord.begin`.
        worker: of several processes, each of which plays its share.

    Returns:
        The counts of all scenes; the same on all processes.

    Raises:
        InputError: the folder has results of other settings, or another program plays into it; or
            see the source and the predictor.
    """
    with play.record.alone() if worker.rank == 0 else nullcontext():
        counts = _begin(play, settings, worker, overwrite)
        if counts is not None:
            play.shown(sum(scene.frames for scene in share(scenes, worker)), True)
            return counts
        for scene in share(scenes, worker):
            play_scene(play, scene)
        worker.wait()
        counts = SceneProgress(complete=True)
        for scene in scenes:
            counts.add(play.record.progress(scene))
        worker.wait()
        if worker.rank == 0:
            for sink in play.sinks:
                sink.finish(scenes)
            play.record.end(counts)
        return counts


def _begin(
    play: Play, settings: Mapping[str, Any], worker: Worker, overwrite: bool
) -> SceneProgress | None:
    """The counts, if an earlier start has finished everything."""
    # One process compares and removes. The others read what it has written.
    counts = None
    if worker.rank == 0:
        counts = play.record.begin(settings, play.sinks, overwrite)
        play.record.remove_temporary(play.sinks)
    worker.wait()
    return counts if worker.rank == 0 else play.record.begin(settings, play.sinks)


def play_scene(play: Play, scene: Scene) -> None:
    """Plays a scene to its end, from where an earlier start has stopped."""
    progress = play.record.progress(scene)
    play.shown(progress.frames, True)
    if progress.complete:
        return
    if progress.frames:
        play.record.load_state(play.predictor, scene, progress.frames)
    else:
        play.predictor.reset()
    log = ReplayLog(play.record.parts, play.spec, play.replay_min_score)
    opened = []
    try:
        for sink in play.sinks:
            sink.open_scene(scene, progress.frames if sink.can_append else 0)
            opened.append(sink)
        _play_frames(play, scene, progress, log)
        for sink in play.sinks:
            sink.close_scene()
    except BaseException:
        for sink in opened:
            sink.abandon_scene()
        raise
    finally:
        log.close()
    play.record.save(scene, replace(progress, complete=True))


def _play_frames(play: Play, scene: Scene, progress: SceneProgress, log: ReplayLog) -> None:
    """Plays the frames of a scene that are not done, and replays the others where it is needed."""
    appending = [sink for sink in play.sinks if sink.can_append]
    others = [sink for sink in play.sinks if not sink.can_append]
    done = progress.frames
    known = log.open_scene(scene, done) if others else iter(())
    first = 0 if others else done
    moments = islice(play.source.frames(scene.name, first), scene.frames - first)

    def prepared(item: tuple[int, Moment]) -> tuple[int, Moment, Any]:
        index, moment = item
        return index, moment, None if index < done else _prepared(play.predictor, moment)

    saved = time.monotonic()
    for index, moment, ready in ahead(enumerate(moments, first), prepared):
        if index < done:
            _write(others, moment, next(known))
            continue
        objects = _detected(play, moment, ready)
        _write(appending, moment, objects)
        if others:
            _write(others, moment, log.write(objects))
        progress.frames = index + 1
        _count(progress, moment, objects, ready)
        play.shown(1, False)
        late = time.monotonic() - saved >= play.save_seconds
        if late or progress.frames % play.save_frames == 0:
            _save(play, scene, progress, log)
            saved = time.monotonic()


def _prepared(predictor: SceneReader, moment: Moment) -> Any:
    try:
        return predictor.prepare(moment)
    except NoPictureError as error:
        return error  # it is counted when the turn of its frame comes


def _detected(play: Play, moment: Moment, ready: Any) -> Objects:
    """The objects of a frame; none where all of its pictures are broken."""
    if not isinstance(ready, NoPictureError):
        (objects,) = play.predictor.detect([ready])
        return objects
    # The frame keeps its place in the results, and the memory bridges it.
    nothing = Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    pose = as_pose(moment.vehicle_to_world, "vehicle_to_world")
    return Objects.of(nothing, pose, pose, play.spec, timestamp_s=float(moment.timestamp_s))


def _save(play: Play, scene: Scene, progress: SceneProgress, log: ReplayLog) -> None:
    """Stores how far the scene is; whenever it is stopped, what is stored goes together."""
    for sink in play.sinks:
        if sink.can_append:
            sink.save()
    log.save()
    play.predictor.save_state(play.record.state_file(scene, progress.frames))
    play.record.save(scene, progress)


def _write(sinks: Sequence[Sink], moment: Moment, objects: Objects) -> None:
    used = {
        name: picture if name in objects.cameras else None
        for name, picture in moment.pictures.items()
    }
    for sink in sinks:
        sink.write(replace(moment, pictures=used), objects)


def _count(progress: SceneProgress, moment: Moment, objects: Objects, ready: Any) -> None:
    progress.scene_starts += objects.starts_scene
    progress.missing_pictures += len(moment.rig.cameras) - len(objects.cameras)
    where = f"{moment.scene} {moment.name}"
    progress.count_bad([f"{where}: {text}" for text in getattr(ready, "bad_pictures", ())])
