"""A predictor without a network, and sinks, for tests of how drives are played."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streampetr_vit.data.image_io import BadImageError, read_image
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.files import replacing
from streampetr_vit.inference.playing.play import Play, SceneReader, play_scenes
from streampetr_vit.inference.playing.record import PlayRecord
from streampetr_vit.inference.playing.scene_progress import SceneProgress
from streampetr_vit.inference.playing.shares import ONE_PROCESS, Worker, choose_scenes
from streampetr_vit.inference.preparation import NoPictureError
from streampetr_vit.inference.sinks import NuScenesResults, ObjectLines, Scene
from streampetr_vit.inference.sources import Source
from streampetr_vit.structures import Detections, Moment, Objects, Pose
from streampetr_vit.structures.tracks import NO_ID, TRAIL_LENGTH, Tracks

REFERENCE = Pose(np.array([0.9, 0.0, 1.8]), np.array([np.sqrt(0.5), 0, 0, -np.sqrt(0.5)]))


class Killed(BaseException):
    """Stands for the end of a process: nothing can be tidied up."""


@dataclass
class Ready:
    moment: Moment
    cameras: list[str]
    seen: int
    bad_pictures: Sequence[str]


class FakePredictor:
    """Finds three objects in each moment, which depend on all moments of the scene before.

    Args:
        dies_at: `detect` raises in the call of this number, counted from 0.
        on_bad_image: "raise" or "count".
        tracks: whether the second object has no id, and the others have one.
    """

    def __init__(
        self, dies_at: int | None = None, on_bad_image: str = "raise", tracks: bool = False
    ) -> None:
        self.tracks = tracks
        self.dies_at, self._counts = dies_at, on_bad_image == "count"
        self.calls = 0
        self.reset()

    def reset(self) -> None:
        self.memory, self.age = 0, 0

    def prepare(self, moment: Moment) -> Ready:
        cameras, bad, seen = [], [], 0
        for camera in moment.rig.cameras:
            picture = moment.pictures[camera.name]
            if picture is None:
                continue
            try:
                if not isinstance(picture, np.ndarray):
                    picture = read_image(Path(picture), (camera.width, camera.height))
            except BadImageError as error:
                if not self._counts:
                    raise BadImageError(f"{moment.scene} {moment.name}: {error}") from error
                bad.append(f"camera {camera.name}: {error}")
                continue
            cameras.append(camera.name)
            seen = zlib.crc32(picture.tobytes(), seen)
        if bad and not cameras:
            raise NoPictureError(bad)
        return Ready(moment, cameras, seen, bad)

    def detect(self, prepared: Sequence[Ready]) -> list[Objects]:
        (ready,) = prepared
        if self.calls == self.dies_at:
            raise Killed
        self.calls += 1
        self.memory = zlib.crc32(f"{self.memory} {ready.seen}".encode())
        self.age += 1
        rng = np.random.default_rng(self.memory)
        boxes = rng.uniform(-20, 20, (3, 9))
        boxes[:, 3:6] = np.abs(boxes[:, 3:6]) / 5 + 0.1
        detections = Detections(
            torch.tensor(boxes).float(),
            torch.tensor(np.sort(rng.uniform(0, 1, 3))[::-1].copy()).float(),
            torch.tensor(rng.integers(0, 10, 3)),
        )
        moment = ready.moment
        return [
            Objects.of(
                detections,
                REFERENCE,
                moment.vehicle_to_world,
                NUSCENES,
                timestamp_s=moment.timestamp_s,
                starts_scene=self.age == 1,
                cameras=ready.cameras,
                tracks=made_tracks(rng) if self.tracks else None,
            )
        ]

    def save_state(self, path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_text(f"{self.memory} {self.age}")

    def load_state(self, path: Path) -> None:
        self.memory, self.age = map(int, path.read_text().split())


def made_tracks(rng: np.random.Generator) -> Tracks:
    """Of three objects: one with a long trail, none, and one with a short trail."""
    trails = rng.uniform(-30, 30, (3, TRAIL_LENGTH, 2)) + (10.0, 1.0)
    trails[1], trails[2, : -int(rng.integers(1, 4))] = np.nan, np.nan
    ids = np.array([rng.integers(1, 90), NO_ID, rng.integers(90, 99)])
    seen = ids != NO_ID
    return Tracks(ids, rng.uniform(0, 20, 3) * seen, rng.uniform(0, 1, 3) * seen, trails)


class PictureSink:
    """Writes a file for each scene of what it was given; it must see a scene from its start."""

    can_append = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open_scene(self, scene: Scene, done: int) -> None:
        assert done == 0
        self._path, self._lines = self.folder / scene.label, list[str]()

    def write(self, moment: Moment, objects: Objects) -> None:
        names = sorted(name for name, picture in moment.pictures.items() if picture is not None)
        self._lines.append(f"{moment.name} {names} {objects.detections.boxes.numpy().tobytes()!r}")
        assert tuple(names) == tuple(sorted(objects.cameras))

    def save(self) -> None:
        raise AssertionError("it cannot append")

    def close_scene(self) -> None:
        with replacing(self._path) as temporary:
            temporary.write_text("\n".join(self._lines))

    def abandon_scene(self) -> None:
        self._lines = []

    def finish(self, scenes: Sequence[Scene]) -> None:
        assert [path.name for path in sorted(self.folder.iterdir())] == [s.label for s in scenes]

    def outputs(self) -> list[Path]:
        return [self.folder]


def play_of(
    source: Source,
    out: Path,
    predictor: SceneReader,
    save_frames: int = 1,
    min_score: float = 0.0,
    draw: bool = True,
) -> Play:
    """All sinks, in a folder."""
    record = PlayRecord(out)
    sinks: list[Any] = [
        ObjectLines(out / "objects.jsonl", record.parts, min_score),
        NuScenesResults(out / "results_nusc.json", record.parts, min_score),
    ]
    if draw:
        sinks.append(PictureSink(out / "drawn"))
    return Play(
        source,
        predictor,
        sinks,
        record,
        NUSCENES,
        replay_min_score=0.3,
        save_frames=save_frames,
        save_seconds=1e9,
    )


def played(
    source: Source,
    out: Path,
    predictor: SceneReader | None = None,
    *,
    settings: dict[str, Any] | None = None,
    worker: Worker = ONE_PROCESS,
    overwrite: bool = False,
    most_frames: int | None = None,
    **options: Any,
) -> SceneProgress:
    """Plays all scenes."""
    play = play_of(source, out, predictor or FakePredictor(), **options)
    scenes = choose_scenes(source, most_frames=most_frames)
    return play_scenes(play, scenes, settings or {"weights": "a"}, worker, overwrite)


def files_in(folder: Path) -> dict[str, bytes]:
    """What a folder holds."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
