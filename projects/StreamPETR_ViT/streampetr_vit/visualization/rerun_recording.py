"""Recordings of a drive for rerun's viewer (.rrd), written moment by moment."""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.files import replacing
from streampetr_vit.structures import Moment, Objects
from streampetr_vit.texts import shown

APPLICATION = "streampetr_vit"
# The last release for numpy 1, which nuscenes-devkit needs, and the pyarrow that it works with.
RERUN_VERSION = "0.23.1"
INSTALL = f"pip install rerun-sdk=={RERUN_VERSION} 'pyarrow<26'"
# A file of rerun 0.23: the magic, 8 bytes, then messages, each with its kind and length in front.
_MAGIC, _HEADER_BYTES, _END_OF_FILE = b"RRF2", 12, 0
_MESSAGE = struct.Struct("<QQ")


class RerunRecording:
    """Adds moments to a recording; `rerun_recording` makes it.

    Attributes:
        frames: number of moments that were written.
    """

    def __init__(
        self, temporary: Path, application: str, score_threshold: float, picture_width: int
    ) -> None:
        # Here, where rerun is known to be installed.
        from streampetr_vit.visualization.rerun_content import RerunContent

        self.frames = 0
        self._open = partial(RerunContent, temporary, application, score_threshold, picture_width)
        self._content: RerunContent | None = None

    def write(self, moment: Moment, objects: Objects) -> None:
        """Adds a moment.

        Args:
            moment: with straight pictures, see `camera_shots`.
            objects: of this moment, in any frame.

        Raises:
            InputError, BadImageError: see `camera_shots`.
        """
        if self._content is None:
            self._content = self._open(moment, objects)
        self._content.log(self.frames, moment, objects)
        self.frames += 1

    def close(self) -> None:
        """Writes what is still to be written."""
        if self._content is not None:
            self._content.end()


@contextmanager
def rerun_recording(
    path: str | Path,
    application: str = APPLICATION,
    score_threshold: float = 0.25,
    picture_width: int = 800,
) -> Iterator[RerunRecording]:
    """Opens a recording that gets its name when the block is done. No file is left if it raises.

    The memory that it needs does not grow with the number of moments.

    Args:
        path: ends with .rrd; its folder is made.
        application: recordings of one name share their layout in the viewer.
        score_threshold: weaker objects are left out.
        picture_width: wider pictures are made smaller, pixels.

    Raises:
        InputError: rerun-sdk is not installed or turned off, another ending, or a block that wrote
            no moment.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".rrd":
        raise InputError(f"recording {shown(str(path))}: end its name with .rrd")
    _require_rerun()
    with replacing(path, ".rrd") as temporary:
        recording = RerunRecording(temporary, application, score_threshold, picture_width)
        try:
            yield recording
        finally:
            recording.close()
        if not recording.frames:
            raise InputError(f"recording {path} got no moment; write at least one")
        if not _is_complete(temporary):  # rerun only logs that a write failed
            raise OutputError(
                f"the recording {path} could not be written as a whole: free some space on its "
                "disk, or choose another folder"
            )


def _require_rerun() -> None:
    """Imports the package.

    Raises:
        InputError: it is not there, not of the version that was tested, or turned off.
    """
    try:
        found = version("rerun-sdk")
        importlib.import_module("rerun")
    except PackageNotFoundError:
        raise InputError(f"recordings need the package rerun-sdk: `{INSTALL}`") from None
    except ImportError as error:  # a pyarrow that needs numpy 2
        raise InputError(f"rerun-sdk cannot be imported ({error}): `{INSTALL}`") from error
    if not found.startswith("0.23."):
        raise InputError(f"rerun-sdk is of version {found}, and 0.23 is needed: `{INSTALL}`")
    switch = os.environ.get("RERUN", "")
    if switch.lower() in ("0", "off", "false"):  # rerun would drop everything without an error
        raise InputError(f"RERUN={switch} turns recordings off: unset this environment variable")


def _is_complete(path: Path) -> bool:
    """Whether a recording has its end; reads the lengths of its messages only."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(_HEADER_BYTES)[: len(_MAGIC)] != _MAGIC:
            return False
        while len(head := file.read(_MESSAGE.size)) == _MESSAGE.size:
            kind, length = _MESSAGE.unpack(head)
            if kind == _END_OF_FILE:
                return file.tell() == size
            file.seek(length, 1)
    return False
