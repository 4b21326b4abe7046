"""A camera's pictures in a video file."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.structures.moment import Picture

VIDEO_ENDINGS = (".mp4", ".avi", ".mkv", ".mov")
_LOG = logging.getLogger(__name__)
# How such files begin: (offset, bytes). A decoder goes by the content, and a list of addresses with
# the name of a video would make it read other files.
_BEGINNINGS = (
    *((4, kind) for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),  # MP4, MOV
    (8, b"AVI "),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska
)


class Video:
    """The pictures of one camera, one after the other.

    Args:
        path: the file.
        camera: whose pictures it has, for messages.
        size: (width, height) of the camera's pictures.

    Raises:
        MissingFileError: the file cannot be read.
        InputError: it is no video that OpenCV can decode, or of another size.
    """

    def __init__(self, path: Path, camera: str, size: tuple[int, int]) -> None:
        self.path, self._camera = path, camera
        _check_kind(path)
        with self._opened() as capture:
            width, height = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
            found = int(capture.get(width)), int(capture.get(height))
        if found != tuple(size):
            raise InputError(
                f"video {path} is {found[0]}x{found[1]} pixels, and rig.yaml says "
                f"{size[0]}x{size[1]} for camera {camera}; give width, height and intrinsics of "
                "the video's pictures (many encoders cut off an odd row or column)"
            )

    def check_count(self, rows: int, table: Path) -> None:
        """Compares the number of pictures with the number of frames.

        Raises:
            InputError: they differ.
        """
        with self._opened() as capture:
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            if count != rows:  # some files do not say it, or do so by rate and length
                _LOG.info("counting the pictures of %s", self.path)
                count = 0
                while capture.grab():
                    count += 1
        if count != rows:
            raise self._wrong_count(count, f"{rows}, one for each frame of {table}")

    def of_rows(self, rows: range) -> Generator[Picture, None, None]:
        """The pictures of frames that lie behind one another.

        Returns:
            (height, width, 3) uint8 RGB each.

        Raises:
            InputError: the video ends before.
        """
        with self._opened() as capture:
            # Every picture on the way: to jump is not exact in many files.
            for row in range(rows.start):
                if not capture.grab():
                    raise self._wrong_count(row, f"more than {rows.start}")
            for row in rows:
                decoded, image = capture.read()
                if not decoded:
                    raise self._wrong_count(row, f"more than {row}")
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def _wrong_count(self, count: int, wanted: str) -> InputError:
        return InputError(
            f"video {self.path} of camera {self._camera}: the number of pictures that can be "
            f"decoded is {count}, and must be {wanted}; write the missing ones, or cut the longer "
            "of both"
        )

    @contextmanager
    def _opened(self) -> Iterator[cv2.VideoCapture]:
        # Not OpenCV's choice of a reader: some take % in a name as a number.
        capture = cv2.VideoCapture(str(self.path.absolute()), cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise InputError(
                    f"video {self.path} cannot be decoded; write it as H.264 or MJPEG, or write "
                    "its pictures into files"
                )
            # Calibration is of the sensor: no turning by a tag.
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
            yield capture
        finally:
            capture.release()


def _check_kind(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise MissingFileError(f"video {path} cannot be read: {error.strerror or error}") from error
    if not any(head[at : at + len(text)] == text for at, text in _BEGINNINGS):
        raise InputError(f"{path} is no MP4, AVI, MKV or MOV file; write the video again")
