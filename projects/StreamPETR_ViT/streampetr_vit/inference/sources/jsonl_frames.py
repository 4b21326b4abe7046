"""Reads frames.jsonl, the frames of a drive as one JSON object per line."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streampetr_vit.errors import InputError
from streampetr_vit.inference.sources.frame_columns import FrameColumns
from streampetr_vit.json_files import read_json_lines
from streampetr_vit.structures.rig_file import check_keys, pose_of
from streampetr_vit.texts import name_list, nearest, shown

_NEEDED = ("timestamp_s", "vehicle_to_world")
_OPTIONAL = ("frame", "scene", "pictures", "camera_vehicle_to_world")


def read_jsonl(path: Path, cameras: Sequence[str], scene: str) -> FrameColumns:
    """The frames of a file with a JSON object per line.

    Args:
        path: the file, in UTF-8.
        cameras: names of the rig's cameras.
        scene: name of the scene where a line does not say it.

    Raises:
        MissingFileError: it cannot be read.
        InputError: a line is no JSON object; a field is missing, unknown or not what it must be.
            It names the line and the field.
    """
    rows = _Rows(path, cameras, scene)
    for line, values in read_json_lines(path):
        rows.add(line, values)
    return rows.columns()


class _Rows:
    """Collects the lines as columns."""

    def __init__(self, path: Path, cameras: Sequence[str], scene: str) -> None:
        self.path, self.cameras, self.scene = path, cameras, scene
        self.lines, self.times, self.poses = array("q"), array("d"), array("d")
        self.names: list[str] = []
        self.scenes: list[str] = []
        self.pictures: dict[str, list[str]] = {}
        self.camera_poses: dict[str, dict[int, np.ndarray]] = {}

    def add(self, line: int, values: Any) -> None:
        """Takes the next frame."""
        row, where = len(self.names), f"{self.path}, line {line}"
        values = check_keys(values, _NEEDED, _OPTIONAL, where)
        self.lines.append(line)
        self.times.append(_number(values["timestamp_s"], f"timestamp_s of {where}"))
        self.poses.extend(_pose_row(values["vehicle_to_world"], f"vehicle_to_world of {where}"))
        self.names.append(_text(values.get("frame", f"{row:06d}"), f"frame of {where}"))
        self.scenes.append(_text(values.get("scene", self.scene), f"scene of {where}"))
        self._add_pictures(row, values.get("pictures"), where)
        poses = _of_cameras(values.get("camera_vehicle_to_world", {}), self.cameras, where)
        for camera, pose in poses.items():
            what = f"camera_vehicle_to_world of camera {camera} of {where}"
            self.camera_poses.setdefault(camera, {})[row] = _pose_row(pose, what)

    def _add_pictures(self, row: int, values: Any, where: str) -> None:
        if values is None:  # then no line may have it
            if self.pictures:
                raise InputError(f"{where} has no pictures, and lines before have; write them")
            return
        named = _of_cameras(values, self.cameras, where)
        if row == 0:
            self.pictures = {camera: [] for camera in self.cameras if camera in named}
        if named.keys() != self.pictures.keys():
            raise InputError(
                f"{where} has pictures of {name_list(named) or 'no camera'}, and the lines before "
                f"of {name_list(self.pictures) or 'none'}; name the same cameras in each line, "
                "with null for one without a picture"
            )
        for camera, name in named.items():
            what = f"picture of camera {camera} of {where}"
            self.pictures[camera].append("" if name is None else _text(name, what))

    def columns(self) -> FrameColumns:
        """All that was taken."""
        count = len(self.names)
        poses = {}
        for camera, rows in self.camera_poses.items():
            poses[camera] = np.full((count, 7), np.nan)
            poses[camera][list(rows)] = np.array(list(rows.values()))
        return FrameColumns(
            path=self.path,
            lines=np.array(self.lines, dtype=np.int64),
            names=self.names,
            scenes=self.scenes,
            timestamp_s=np.array(self.times, dtype=np.float64),
            vehicle_to_world=np.array(self.poses, dtype=np.float64).reshape(count, 7),
            pictures=self.pictures,
            camera_vehicle_to_world=poses,
        )


def _of_cameras(values: Any, cameras: Sequence[str], where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise InputError(f"{where} has {shown(values)}; give a mapping of cameras")
    for name in values:
        if name not in cameras:
            near = nearest(name, cameras)
            fix = f"did you mean {near[0]}?" if near else f"rig.yaml has {name_list(cameras)}"
            raise InputError(f"{where} names camera {shown(name)}, which is unknown: {fix}")
    return values


def _pose_row(value: Any, what: str) -> np.ndarray:
    pose = pose_of(value, what)
    return np.concatenate((pose.translation_m, pose.rotation_wxyz))


def _number(value: Any, what: str) -> float:
    # bool is an int to Python, and an int of 400 digits no float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
        raise InputError(f"{what} is {shown(value)}; give seconds as a number")
    return float(value)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} is {shown(value)}; give a text")
    return value
