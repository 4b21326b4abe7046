"""Objects as lines of JSON, and as results files of nuScenes: one line for each frame.

While a scene is played, its lines go into a file of its own. At the end the files are joined, line
by line: the memory that is needed does not grow with the length of a drive.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.result_format import result_line, write_result_lines
from streampetr_vit.evaluation.tracking_format import tracking_line
from streampetr_vit.files import replacing
from streampetr_vit.inference.sinks.base import Scene
from streampetr_vit.inference.sinks.part_file import PartFile, lines_of
from streampetr_vit.structures import Moment, Objects
from streampetr_vit.structures.rig_file import plain_pose
from streampetr_vit.structures.tracks import NO_ID, Tracks


class LineSink(ABC):
    """A line for each frame.

    Args:
        path: the file that is made in the end.
        parts: folder of the files of the scenes.
        min_score: weaker objects are left out.
    """

    can_append = True
    ending = "lines"  # of the name of a scene's file

    def __init__(self, path: Path, parts: Path, min_score: float = 0.0) -> None:
        self.path, self._parts, self._min_score = path, parts, min_score
        self._file: PartFile | None = None

    @abstractmethod
    def line(self, moment: Moment, objects: Objects) -> str:
        """What the file says about a frame."""

    @abstractmethod
    def join(self, lines: Iterator[str]) -> None:
        """Makes the file of the lines of all scenes."""

    def open_scene(self, scene: Scene, done: int) -> None:
        """See `Sink`."""
        self._file = PartFile(self._part(scene), done)

    def write(self, moment: Moment, objects: Objects) -> None:
        """See `Sink`."""
        assert self._file is not None
        if self._min_score > 0:
            objects = objects[objects.scores >= self._min_score]
        self._file.write(self.line(moment, objects))

    def save(self) -> None:
        """See `Sink`."""
        assert self._file is not None
        self._file.save()

    def close_scene(self) -> None:
        """See `Sink`."""
        self.save()
        self.abandon_scene()

    def abandon_scene(self) -> None:
        """See `Sink`."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def finish(self, scenes: Sequence[Scene]) -> None:
        """See `Sink`."""
        self.join(line for scene in scenes for line in lines_of(self._part(scene)))

    def outputs(self) -> list[Path]:
        """See `Sink`."""
        return [self.path]

    def _part(self, scene: Scene) -> Path:
        return self._parts / f"{scene.label}.{self.ending}.jsonl"


class ObjectLines(LineSink):
    """objects.jsonl: a JSON object for each frame, with the objects in the frame of the vehicle."""

    ending = "objects"

    def line(self, moment: Moment, objects: Objects) -> str:
        """See `LineSink`."""
        return json.dumps(plain_frame(moment, objects))

    def join(self, lines: Iterator[str]) -> None:
        """See `LineSink`."""
        with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


class NuScenesResults(LineSink):
    """results_nusc.json: the results file of the nuScenes detection task, in the world frame.

    The names of the moments are its sample tokens. Objects beyond the range of their class are left
    out, as the task leaves them out.
    """

    ending = "nuscenes"

    def line(self, moment: Moment, objects: Objects) -> str:
        """See `LineSink`."""
        return result_line(objects.global_boxes(moment.name))

    def join(self, lines: Iterator[str]) -> None:
        """See `LineSink`."""
        write_result_lines(self.path, lines)


class TrackingResults(LineSink):
    """tracking_nusc.json: the results file of the nuScenes tracking task, in the world frame.

    It has the objects with ids, within the range of their class. The names of the moments are its
    sample tokens.
    """

    ending = "tracking"

    def line(self, moment: Moment, objects: Objects) -> str:
        """See `LineSink`.

        Raises:
            InputError: no tracker was at work.
        """
        boxes, tracks = objects.global_boxes(moment.name), objects.tracks
        if tracks is None and len(objects) > 0:
            raise InputError(
                f"{moment.scene} {moment.name}: its objects have no ids, and {self.path.name} is "
                "made of ids: give the predictor a tracker"
            )
        if tracks is None:  # all pictures are broken: the sample is there, without boxes
            tracks = Tracks.none(0)
        assert boxes.rows is not None
        return tracking_line(boxes, tracks[boxes.rows], objects.spec)

    def join(self, lines: Iterator[str]) -> None:
        """See `LineSink`."""
        write_result_lines(self.path, lines)


def plain_frame(moment: Moment, objects: Objects) -> dict[str, Any]:
    """A frame as objects.jsonl has it: metres, metres per second, radians, seconds.

    Objects have an id and its age where a tracker was at work; both are None where it gave none.
    """
    found = objects.to("vehicle") if objects.frame != "vehicle" else objects
    columns = {
        "name": found.names.tolist(),
        "score": found.scores.tolist(),
        "center": found.centers.tolist(),
        "size": found.sizes.tolist(),
        "yaw": found.yaws.tolist(),
        "velocity": found.velocities.tolist(),
    }
    if found.tracks is not None:
        has_id = found.ids != NO_ID
        columns["id"] = np.where(has_id, found.ids, None).tolist()
        columns["age_s"] = np.where(has_id, found.ages_s, None).tolist()
    return {
        "scene": moment.scene,
        "frame": moment.name,
        "timestamp_s": objects.timestamp_s,
        "frame_of_reference": "vehicle",
        "vehicle_to_world": plain_pose(objects.vehicle_to_world),
        "cameras": list(objects.cameras),
        "starts_scene": objects.starts_scene,
        "objects": [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ],
    }
