"""Reads pictures, and tells a broken one from a good one."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from streampetr_vit.errors import UserError

# A marker that ends the picture, or that begins a segment with its length. Compressed data hold
# 0xff only before 0x00 or as a restart marker (0xd0 to 0xd7).
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_END_OF_JPEG = b"\xd9"


class BadImageError(UserError, RuntimeError):
    """A picture is missing, truncated, unreadable, or not of the size that the tables state."""


def read_image(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Decodes a picture file. Damage in its middle that can still be decoded is not detected.

    Args:
        path: the file.
        size: (width, height) that the tables state.

    Returns:
        (height, width, 3) uint8 BGR.

    Raises:
        BadImageError: see there.
    """
    picture = f"picture {path}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImageError(f"{picture} cannot be read: {error.strerror or error}") from error
    if _is_truncated(data):
        raise BadImageError(f"{picture} is truncated: {len(data)} bytes without an end marker")
    # OpenCV decodes as the reference does. Calibration is of the sensor: no turning by a tag.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise BadImageError(f"{picture} is none that OpenCV can decode ({len(data)} bytes)")
    if (image.shape[1], image.shape[0]) != tuple(size):
        raise BadImageError(
            f"{picture} is {image.shape[1]}x{image.shape[0]} pixels, the table sample_data says "
            f"{size[0]}x{size[1]}"
        )
    return image


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
