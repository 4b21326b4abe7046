"""What was found in a scene so far, for sinks that must see it from its start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from streampetr_vit.errors import InputError
from streampetr_vit.inference.sinks.base import Scene
from streampetr_vit.inference.sinks.part_file import PartFile, lines_of
from streampetr_vit.structures import DatasetSpec, Detections, Objects
from streampetr_vit.structures.rig_file import plain_pose, pose_of
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
            ),
            pose_of(values["reference_to_vehicle"], "reference_to_vehicle"),
            pose_of(values["vehicle_to_world"], "vehicle_to_world"),
            self._spec,
            timestamp_s=values["timestamp_s"],
            starts_scene=values["starts_scene"],
            cameras=values["cameras"],
        )

    def _path(self, scene: Scene) -> Path:
        return self._parts / f"{scene.label}.replay.jsonl"


def _line(objects: Objects) -> str:
    found = objects.detections
    # Every float32 is a float64, which JSON keeps to the last bit.
    return json.dumps(
        {
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
    )
