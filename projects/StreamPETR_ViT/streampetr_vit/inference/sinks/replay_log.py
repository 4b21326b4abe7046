"""What was found in a scene so far, for sinks that must see it from its start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streampetr_vit.errors import InputError
from streampetr_vit.inference.sinks.base import Scene
from streampetr_vit.inference.sinks.part_file import PartFile, lines_of
from streampetr_vit.structures import DatasetSpec, Detections, Objects
from streampetr_vit.structures.rig_file import plain_pose, pose_of
from streampetr_vit.structures.tracks import Tracks
from streampetr_vit.texts import printable


class ReplayLog:
    """Keeps the objects of a scene, exactly.

    Args:
        parts: folder of its files.
        spec: classes of the objects.
        min_score: weaker objects are left out.
    """

    def __init__(self, parts: Path, spec: DatasetSpec, min_score: float = 0.0) -> None:
        self._parts, self._spec, self._min_score = parts, spec, min_score
        self._file: PartFile | None = None

    def open_scene(self, scene: Scene, done: int) -> Iterator[Objects]:
        """Goes on behind the first `done` frames of a scene, whose objects are returned."""
        path = self._path(scene)
        self._file = PartFile(path, done)
        return self._known(path, done)

    def write(self, objects: Objects) -> Objects:
        """Takes the objects of the next frame, and returns what a later replay will."""
        assert self._file is not None
        line = _line(objects[objects.scores >= self._min_score])
        self._file.write(line)
        return self._objects(line)

    def save(self) -> None:
        """Brings what it has taken to the disk."""
        if self._file is not None:
            self._file.save()

    def close(self) -> None:
        """Closes the file of the scene."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _known(self, path: Path, done: int) -> Iterator[Objects]:
        for line in lines_of(path, done):
            try:
                yield self._objects(line)
            except (ValueError, KeyError, TypeError, RuntimeError) as error:
                raise InputError(
                    f"{path} has a line that this tool has not written ({printable(error)}): begin "
                    "anew with --overwrite, or choose another --out"
                ) from error

    def _objects(self, line: str) -> Objects:
        values = json.loads(line)
        boxes = torch.tensor(values["boxes"], dtype=torch.float32)
        return Objects.of(
            Detections(
                boxes.reshape(-1, values["width"]),
                torch.tensor(values["scores"], dtype=torch.float32),
                torch.tensor(values["labels"], dtype=torch.long),
                *(_optional(values.get(name)) for name in ("queries", "lineages")),
            ),
            pose_of(values["reference_to_vehicle"], "reference_to_vehicle"),
            pose_of(values["vehicle_to_world"], "vehicle_to_world"),
            self._spec,
            timestamp_s=values["timestamp_s"],
            starts_scene=values["starts_scene"],
            cameras=values["cameras"],
            tracks=_tracks(values["tracks"]) if "tracks" in values else None,
        )

    def _path(self, scene: Scene) -> Path:
        return self._parts / f"{scene.label}.replay.jsonl"


def _line(objects: Objects) -> str:
    found = objects.detections
    # Every float32 is a float64, which JSON keeps to the last bit.
    values = {
        "timestamp_s": objects.timestamp_s,
        "starts_scene": objects.starts_scene,
        "cameras": list(objects.cameras),
        "reference_to_vehicle": plain_pose(objects.reference_to_vehicle),
        "vehicle_to_world": plain_pose(objects.vehicle_to_world),
        "width": found.boxes.shape[1],
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "labels": found.labels.tolist(),
    }
    for name, column in (("queries", found.queries), ("lineages", found.lineages)):
        if column is not None:
            values[name] = column.tolist()
    if objects.tracks is not None:
        values["tracks"] = _plain_tracks(objects.tracks)
    return json.dumps(values)


def _optional(column: list[int] | None) -> torch.Tensor | None:
    return None if column is None else torch.tensor(column, dtype=torch.long)


def _plain_tracks(tracks: Tracks) -> dict[str, Any]:
    """Tracks in JSON, which has no NaN: trails without the places that are not there."""
    return {
        "ids": tracks.ids.tolist(),
        "ages_s": tracks.ages_s.tolist(),
        "scores": tracks.scores.tolist(),
        "trail_length": tracks.trails_m.shape[1],
        "trails_m": [trail[~np.isnan(trail).any(axis=1)].tolist() for trail in tracks.trails_m],
    }


def _tracks(values: dict[str, Any]) -> Tracks:
    """The inverse of `_plain_tracks`."""
    trails = np.full((len(values["ids"]), values["trail_length"], 2), np.nan)
    for row, places in enumerate(values["trails_m"]):
        if places:
            trails[row, -len(places) :] = places
    return Tracks(
        ids=np.array(values["ids"], dtype=np.int64),
        ages_s=np.array(values["ages_s"], dtype=np.float64),
        scores=np.array(values["scores"], dtype=np.float64),
        trails_m=trails,
    )
