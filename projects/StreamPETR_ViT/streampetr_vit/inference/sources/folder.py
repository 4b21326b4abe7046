"""A drive in a folder: rig.yaml, a table of frames, and pictures or videos."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from streampetr_vit.errors import InputError, MissingFileError, UserError
from streampetr_vit.inference.sources.base import rate_of, rows_of
from streampetr_vit.inference.sources.csv_frames import read_csv
from streampetr_vit.inference.sources.frame_columns import FrameColumns, check_columns
from streampetr_vit.inference.sources.jsonl_frames import read_jsonl
from streampetr_vit.inference.sources.pictures import find_pictures
from streampetr_vit.inference.sources.video import Video
from streampetr_vit.structures import Moment, Pose, Rig
from streampetr_vit.structures.moment import Picture

_READERS = {"frames.csv": read_csv, "frames.jsonl": read_jsonl}


class FolderSource:
    """The moments of a drive, see docs/own_cameras.md for the files.

    Everything but the content of pictures is checked when it is opened.

    Args:
        path: the folder.
        may_miss_pictures: whether files of pictures may be missing; then whoever reads them finds
            out.
        allow_missing_cameras: whether cameras of rig.yaml may have no pictures at all.

    Attributes:
        scenes, description: see `Source`.
        rig: the cameras.
        columns: times, poses and names of all frames.

    Raises:
        MissingFileError: the folder or a file of it is missing.
        InputError: a file holds what it may not hold. It names the line, the column and the fix.
    """

    def __init__(
        self,
        path: str | Path,
        may_miss_pictures: bool = False,
        allow_missing_cameras: bool = False,
    ) -> None:
        self._folder = Path(path)
        try:
            self._open(path, may_miss_pictures, allow_missing_cameras)
        except UserError:
            raise
        except OSError as error:  # such as a missing right
            raise MissingFileError(
                f"{error.filename or path} cannot be read: {error.strerror or error}; check its "
                "rights, and those of the folders above"
            ) from error

    def _open(self, path: str | Path, may_miss_pictures: bool, allow_missing_cameras: bool) -> None:
        if not self._folder.is_dir():
            raise MissingFileError(
                f"{path} is no folder; give the folder of a drive, with rig.yaml and frames.csv"
            )
        rig_file, table = self._folder / "rig.yaml", self._table()
        if not rig_file.is_file():
            raise MissingFileError(
                f"{path} has no rig.yaml; describe the cameras in it, see docs/own_cameras.md"
            )
        self.rig = Rig.load(rig_file)
        scene = self._folder.resolve().name or "drive"
        self.columns = _READERS[table.name](table, self.rig.names, scene)
        check_columns(self.columns)
        self._pictures = {
            camera.name: find_pictures(
                self._folder, camera, self.columns, may_miss_pictures, allow_missing_cameras
            )
            for camera in self.rig.cameras
        }
        self._check_pictures()
        self.scenes = self.columns.scene_lengths()
        videos = [v.path for v in self._pictures.values() if isinstance(v, Video)]
        self.description: Mapping[str, object] = {
            "folder": str(self._folder.resolve()),
            **{file.name: _digest(file) for file in (rig_file, table)},
            **{video.name: f"{video.stat().st_size} bytes" for video in videos},
        }

    def frames(self, scene: str, start: int = 0) -> Iterator[Moment]:
        """The moments of a scene, see `Source`.

        Raises:
            InputError: there is no such scene, or a video ends too early.
        """
        return self._frames(rows_of(self.scenes, scene, start))

    def frames_per_second(self, scene: str) -> float:
        """See `Source`."""
        rows = rows_of(self.scenes, scene)
        return rate_of(self.columns.timestamp_s[rows.start : rows.stop])

    def _frames(self, rows: range) -> Iterator[Moment]:
        with ExitStack() as stack:  # closes videos
            pictures = {
                name: stack.enter_context(closing(source.of_rows(rows)))
                for name, source in self._pictures.items()
            }
            for row in rows:
                yield _moment(
                    self.columns,
                    row,
                    self.rig,
                    {name: next(source) for name, source in pictures.items()},
                )

    def _check_pictures(self) -> None:
        """Raises InputError where no camera has a picture."""
        columns = self.columns
        if len(columns.pictures) < len(self.rig.cameras):  # others have one in each frame
            return
        for row, paths in enumerate(zip(*columns.pictures.values(), strict=True)):
            if not any(paths):
                raise InputError(
                    f"{columns.where(row)}: no camera has a picture; leave the frame out, the "
                    "memory bridges the gap"
                )

    def _table(self) -> Path:
        found = [self._folder / name for name in _READERS if (self._folder / name).is_file()]
        if not found:
            raise MissingFileError(
                f"{self._folder} has no {' or '.join(_READERS)}; write the times and poses of the "
                "vehicle into it, see docs/own_cameras.md"
            )
        if len(found) > 1:
            raise InputError(f"{self._folder} has {' and '.join(_READERS)}; remove one of them")
        return found[0]


def _moment(columns: FrameColumns, row: int, rig: Rig, pictures: Mapping[str, Picture]) -> Moment:
    poses = {name: values[row] for name, values in columns.camera_vehicle_to_world.items()}
    return Moment(
        pictures=pictures,
        rig=rig,
        vehicle_to_world=Pose.of_row(columns.vehicle_to_world[row]),
        timestamp_s=float(columns.timestamp_s[row]),
        camera_vehicle_to_world={
            name: Pose.of_row(pose) for name, pose in poses.items() if not np.isnan(pose[0])
        },
        scene=columns.scenes[row],
        name=columns.names[row],
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
