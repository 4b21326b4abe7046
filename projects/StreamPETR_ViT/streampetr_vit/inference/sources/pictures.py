"""The pictures of one camera of a drive: files that a table names, a folder, or a video."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Protocol

from streampetr_vit.data.nuscenes.picture_files import is_below_root
from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.inference.sources.frame_columns import FrameColumns
from streampetr_vit.inference.sources.video import VIDEO_ENDINGS, Video
from streampetr_vit.structures.camera import Camera
from streampetr_vit.structures.moment import Picture
from streampetr_vit.texts import name_list, shown

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".tif", ".tiff", ".webp", ".jp2")
_LOG = logging.getLogger(__name__)


class Pictures(Protocol):
    """The pictures of one camera, one for each frame of the drive."""

    def of_rows(self, rows: range) -> Generator[Picture, None, None]:
        """The pictures of frames that lie behind one another."""


class PictureFiles:
    """Pictures in files.

    Args:
        folder: of the drive.
        names: of the file of each frame, below the folder; "" for no picture.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names

    def of_rows(self, rows: range) -> Generator[Picture, None, None]:
        """The pictures of frames that lie behind one another: paths, or None for no picture."""
        for row in rows:
            name = self._names[row]
            yield self._folder / name if name else None


def find_pictures(
    folder: Path,
    camera: Camera,
    columns: FrameColumns,
    may_miss: bool = False,
    may_have_none: bool = False,
) -> Pictures:
    """Where the pictures of a camera are: files that the frames name, a folder, a video.

    Args:
        folder: of the drive.
        camera: of the rig.
        columns: the frames.
        may_miss: whether files may be missing.
        may_have_none: whether the camera may have no pictures at all.

    Raises:
        MissingFileError: there are no pictures, or a file of them is missing.
        InputError: a path leads out of the folder; it is not clear which file is meant; a video has
            not as many pictures as there are frames, or of another size.
    """
    name = camera.name
    if not is_below_root(name) or "/" in name or name in ("", "."):
        raise InputError(f"camera {shown(name)} gives no name for a folder; rename it in rig.yaml")
    fix = "where the camera dropped out, leave the path empty"
    if name in columns.pictures:
        names = columns.pictures[name]
    elif found := _places(folder, name):
        if len(found) > 1:
            raise InputError(
                f"{folder} has {found[0].name} and {found[1].name}, both of camera {name}: remove "
                "one of them"
            )
        if not found[0].is_dir():
            return _video(found[0], camera, columns)
        names = _in_folder(folder, name, columns)
        fix = (
            f"name the pictures as the frames, or name them in {columns.path.name}, with nothing "
            "where the camera dropped out"
        )
    elif may_have_none:
        names = [""] * len(columns)
    else:
        raise MissingFileError(
            f"camera {name} has no pictures in {folder}: name them in a column {name} of "
            f"{columns.path.name}, or put them into {name}/FRAME.jpg, or give a video {name}.mp4 "
            f"({name_list(VIDEO_ENDINGS[1:])} will do); or leave the camera out with "
            "allow_missing_cameras=True (--allow-missing-cameras)"
        )
    _check_below(names, name, columns)
    if not may_miss:
        _check_there(folder, names, columns, f"of camera {name}", fix)
    return PictureFiles(folder, names)


def _check_below(names: Sequence[str], camera: str, columns: FrameColumns) -> None:
    for row, name in enumerate(names):
        if not is_below_root(name):
            raise InputError(
                f"{columns.where(row)}: picture {shown(name)} of camera {camera} is not below the "
                "folder of the drive; give a path relative to that folder"
            )


def _check_there(
    folder: Path, names: Sequence[str], columns: FrameColumns, whose: str, fix: str
) -> None:
    # Whole folders are listed: to ask for each of 60,000 files takes minutes on a network disk.
    listed: dict[str, set[str]] = {}
    missing = []
    for row, name in enumerate(names):
        parent, _, file = name.rpartition("/")
        if parent not in listed:
            listed[parent] = _listing(folder / parent)
        if name and file not in listed[parent]:
            missing.append(row)
    if missing:
        row = missing[0]
        more = f" ({len(missing)} of {len(names)} are missing)" if len(missing) > 1 else ""
        raise MissingFileError(
            f"{columns.where(row)}: picture {shown(names[row])} {whose}, frame "
            f"{shown(columns.names[row])}, is not in {folder}{more}; {fix}"
        )


def _listing(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:  # no such folder: then its pictures are missing
        return set()


def _in_folder(folder: Path, camera: str, columns: FrameColumns) -> list[str]:
    """The file of each frame: its name, with the ending of a picture."""
    files: dict[str, str] = {}
    for file in sorted(os.listdir(folder / camera)):
        stem, ending = os.path.splitext(file)
        if ending.lower() not in PICTURE_ENDINGS:
            continue
        if stem in files:
            raise InputError(
                f"{folder / camera} has {files[stem]} and {file}: remove one, or name the pictures "
                f"in a column {camera} of {columns.path.name}"
            )
        files[stem] = file
    unused = files.keys() - set(columns.names)
    if unused:
        _LOG.warning(
            "%d pictures in %s belong to no frame of %s, the first is %s",
            len(unused),
            folder / camera,
            columns.path.name,
            shown(files[min(unused)]),
        )
    return [f"{camera}/{files.get(name, f'{name}.jpg')}" for name in columns.names]


def _places(folder: Path, camera: str) -> list[Path]:
    """The folder and the videos of a camera, as far as they are there."""
    beside = (os.path.splitext(file) for file in sorted(os.listdir(folder)))
    videos = [
        folder / f"{stem}{ending}"
        for stem, ending in beside
        if stem == camera and ending.lower() in VIDEO_ENDINGS
    ]
    place = folder / camera
    return [*([place] if place.is_dir() else []), *(path for path in videos if path.is_file())]


def _video(path: Path, camera: Camera, columns: FrameColumns) -> Video:
    video = Video(path, camera.name, (camera.width, camera.height))
    video.check_count(len(columns), columns.path)
    return video
