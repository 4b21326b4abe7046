"""MP4 files, written picture by picture: H.264 by PyAV, or what OpenCV has without it."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import cv2

from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.files import replacing
from streampetr_vit.logs import log_once
from streampetr_vit.texts import shown
from streampetr_vit.visualization.drawing import Image

HIGHEST_RATE = 1000.0  # frames per second
_LOG = logging.getLogger(__name__)
_OPTIONS = {"crf": "23", "preset": "veryfast"}
# What the colours mean, in the numbers of ITU-T H.273: sRGB, limited range. The matrix is that of
# BT.601, which players also take that do not look.
_PRIMARIES_BT709, _TRANSFER_SRGB, _MATRIX_BT601, _LIMITED_RANGE = 1, 13, 6, 1


class Encoder(Protocol):
    """What makes a video of pictures of one even size."""

    def write(self, image: Image) -> None:
        """Adds an RGB picture."""

    def close(self) -> None:
        """Writes what is still to be written."""


class VideoWriter:
    """Adds pictures to a video; `video_writer` makes it.

    Attributes:
        frames: number of pictures that were written.
    """

    def __init__(self, temporary: Path, path: Path, rate: Fraction) -> None:
        self.frames = 0
        self._temporary, self._path, self._rate = temporary, path, rate
        self._shape: tuple[int, ...] = ()
        self._encoder: Encoder | None = None

    def write(self, image: Image) -> None:
        """Adds a picture.

        Args:
            image: (H, W, 3) uint8 RGB, of the size of the ones before.

        Raises:
            InputError: it has another size.
            OutputError: it cannot be encoded or written.
        """
        # Encoders take even sizes only. Nothing is cut off.
        below, right = (n % 2 for n in image.shape[:2])
        if self._encoder is None:
            self._shape = image.shape
            size = (image.shape[1] + right, image.shape[0] + below)
            self._encoder = _encoder(self._temporary, self._path, self._rate, size)
        if image.shape != self._shape:
            (height, width), (rows, columns) = image.shape[:2], self._shape[:2]
            raise InputError(
                f"picture {self.frames} of the video {self._path} is {width}x{height} pixels, "
                f"those before it are {columns}x{rows}; write pictures of one size"
            )
        self._encoder.write(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE))
        self.frames += 1

    def close(self) -> None:
        """Writes what is still to be written."""
        if self._encoder is not None:
            self._encoder.close()


@contextmanager
def video_writer(path: str | Path, frames_per_second: float) -> Iterator[VideoWriter]:
    """Opens a video that gets its name when the block is done; where it raises, no file is left.

    The memory that it needs does not grow with the number of pictures.

    Args:
        path: ends with .mp4; its folder is made.
        frames_per_second: the rate at which it is played.

    Raises:
        InputError: another ending, no such rate, or a block that wrote no picture.
        OutputError: the file cannot be encoded or written.
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise InputError(f"video {shown(str(path))}: end its name with .mp4")
    if not 0 < frames_per_second <= HIGHEST_RATE:  # False for NaN
        raise InputError(
            f"video {path}: {shown(frames_per_second)} frames per second; give a number above 0 "
            f"and at most {HIGHEST_RATE:.0f}"
        )
    # The ending: OpenCV chooses the format by it.
    with replacing(path, ".mp4") as temporary:
        # Not down to 0, the nearest fraction of a very slow rate.
        rate = max(Fraction(frames_per_second).limit_denominator(1000), Fraction(1, 1000))
        video = VideoWriter(temporary, path, rate)
        try:
            yield video
        finally:
            video.close()
        if not video.frames:
            raise InputError(f"video {path} got no picture; write at least one")


def _encoder(temporary: Path, path: Path, rate: Fraction, size: tuple[int, int]) -> Encoder:
    """The best encoder that is there, for pictures of (width, height) pixels."""
    av = _pyav()
    if av is not None:
        return _H264(av, temporary, path, rate, size)
    log_once(
        _LOG,
        logging.WARNING,
        "videos are MPEG-4, which browsers do not play; `pip install av` for H.264",
    )
    return _Mpeg4(temporary, path, rate, size)


def _pyav() -> ModuleType | None:
    """The package av where it is installed and can encode H.264."""
    try:
        av = importlib.import_module("av")
    except ImportError:
        return None
    return av if "libx264" in av.codecs_available else None


class _H264:
    """H.264 as browsers play it, with the index in front of the pictures."""

    def __init__(
        self, av: Any, temporary: Path, path: Path, rate: Fraction, size: tuple[int, int]
    ) -> None:
        self._av, self._path = av, path
        with self._output_errors():
            options = {"movflags": "+faststart"}
            self._container = av.open(str(temporary), "w", format="mp4", options=options)
            self._stream = self._container.add_stream("libx264", rate=rate, options=_OPTIONS)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.color_primaries, codec.color_trc = _PRIMARIES_BT709, _TRANSFER_SRGB
        codec.colorspace, codec.color_range = _MATRIX_BT601, _LIMITED_RANGE

    def write(self, image: Image) -> None:
        frame = self._av.VideoFrame.from_ndarray(image, "rgb24")
        self._encode(frame.reformat(format="yuv420p"))

    def close(self) -> None:
        try:
            self._encode(None)
        finally:
            with self._output_errors():
                self._container.close()

    def _encode(self, frame: Any) -> None:
        with self._output_errors():
            self._container.mux(self._stream.encode(frame))

    @contextmanager
    def _output_errors(self) -> Iterator[None]:
        try:
            yield
        except self._av.error.FFmpegError as error:
            if isinstance(error, OSError):  # `replacing` says what to do about it
                raise
            raise OutputError(f"cannot encode the video {self._path}: {error}") from error


class _Mpeg4:
    """MPEG-4 part 2, which OpenCV's packages always have."""

    def __init__(self, temporary: Path, path: Path, rate: Fraction, size: tuple[int, int]) -> None:
        self._temporary, self._path, self._frames = temporary, path, 0
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(temporary), code, float(rate), size)
        if not self._writer.isOpened():
            raise OutputError(
                f"OpenCV cannot encode the video {path}: `pip install av` for another encoder"
            )

    def write(self, image: Image) -> None:
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._frames += 1

    def close(self) -> None:
        self._writer.release()
        # OpenCV hides when a write failed.
        written = int(cv2.VideoCapture(str(self._temporary)).get(cv2.CAP_PROP_FRAME_COUNT))
        if written != self._frames:
            raise OutputError(
                f"the video {self._path} holds {written} of {self._frames} pictures: free some "
                "space on its disk, or `pip install av`, which says what went wrong"
            )
