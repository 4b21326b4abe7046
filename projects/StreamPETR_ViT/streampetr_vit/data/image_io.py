"""Reads pictures, and tells a broken one from a good one."""

from __future__ import annotations

import re
import stat
import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from streampetr_vit.downloads import left_instead
from streampetr_vit.errors import UserError

# A marker that ends the picture, or that begins a segment with its length. Compressed data hold
# 0xff only before 0x00 or as a restart marker (0xd0 to 0xd7).
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_END_OF_JPEG = b"\xd9"
# What cameras write; Pillow knows more, some of which start other programs.
_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "JPEG2000")
_PIXEL_BYTES = 8  # four channels of 16 bits, not compressed
_HEADER_BYTES = 2**20


class BadImageError(UserError, RuntimeError):
    """A picture is missing, truncated, unreadable, or not of the size that the tables state."""


def read_image(
    path: Path, size: tuple[int, int], source: str = "the table sample_data"
) -> np.ndarray:
    """Decodes a picture file. Damage in its middle that can still be decoded is not detected.

    Args:
        path: the file.
        size: (width, height) that it must have.
        source: what says so, for messages.

    Returns:
        (height, width, 3) uint8 BGR.

    Raises:
        BadImageError: see there.
    """
    picture = f"picture {path}"
    data = _bytes_of(path, size)
    if _is_truncated(data):
        raise BadImageError(f"{picture} is truncated: {len(data)} bytes without an end marker")
    # Before it is decoded: a few kilobytes can say that they are gigabytes of pixels.
    found = _size_of(data)
    if found is not None and found != tuple(size):
        raise BadImageError(
            f"{picture} is {found[0]}x{found[1]} pixels, {source} says {size[0]}x{size[1]}"
        )
    # OpenCV decodes as the reference does. Calibration is of the sensor: no turning by a tag.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = None if found is None else cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        instead = left_instead(data[:512])
        undecoded = f"none that can be decoded ({len(data)} bytes)"
        raise BadImageError(f"{picture} is {f'no picture but {instead}' if instead else undecoded}")
    if image.shape[:2] != (size[1], size[0]):
        raise BadImageError(f"{picture} has another size in its header than in its pixels")
    return image


def read_rgb(
    path: Path, size: tuple[int, int], source: str = "the table sample_data"
) -> np.ndarray:
    """As `read_image`, but (height, width, 3) uint8 RGB."""
    return cv2.cvtColor(read_image(path, size, source), cv2.COLOR_BGR2RGB)


def _bytes_of(path: Path, size: tuple[int, int]) -> bytes:
    """The content of a picture file."""
    most = _PIXEL_BYTES * size[0] * size[1] + _HEADER_BYTES
    try:
        status = path.stat()
        # A pipe or a device would be read for ever.
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError(f"picture {path} is no regular file")
        if status.st_size > most:
            raise BadImageError(
                f"picture {path} has {status.st_size} bytes, more than {size[0]}x{size[1]} pixels "
                f"can need ({most})"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # no path has a NUL character
        reason = getattr(error, "strerror", None) or error
        raise BadImageError(f"picture {path} cannot be read: {reason}") from error


def _size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) that the header states; None if it is no picture of a known kind."""
    try:
        with warnings.catch_warnings():
            # Pillow's own limit is a warning; ours is the size that the tables state.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=_FORMATS) as picture:
                return picture.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _is_truncated(data: bytes) -> bool:
    # OpenCV decodes half a JPEG to half a picture without an error, so the end is looked for.
    if data[:2] == b"\xff\xd8":
        return not _has_jpeg_end(data)
    if data[:4] == b"\x89PNG":
        return b"IEND" not in data[-64:]
    return False


def _has_jpeg_end(data: bytes) -> bool:
    position = 2  # behind the marker that begins the file
    while marker := _JPEG_MARKER.search(data, position):
        if marker[1] == _END_OF_JPEG:
            return True
        # Over the segment by its length: a thumbnail in it has markers of its own.
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False
