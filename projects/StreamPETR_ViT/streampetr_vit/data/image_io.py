"""Reads pictures, and tells a broken one from a good one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

_END_OF_JPEG, _START_OF_SCAN = b"\xff\xd9", b"\xff\xda"


class BadImageError(RuntimeError):
    """A picture is missing, truncated, unreadable, or not of the size that the tables state."""


def read_image(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Decodes a picture file.

    Args:
        path: the file.
        size: (width, height) that the tables state.

    Returns:
        (height, width, 3) uint8, BGR as stored by OpenCV (which decodes as the reference does; an
        orientation tag is ignored).

    Raises:
        BadImageError: saying what is wrong with the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror or error}") from error
    if _is_truncated(data):
        raise BadImageError(f"is truncated: {len(data)} bytes without an end marker")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise BadImageError(f"is no picture that OpenCV can decode ({len(data)} bytes)")
    if (image.shape[1], image.shape[0]) != tuple(size):
        raise BadImageError(
            f"is {image.shape[1]}x{image.shape[0]} pixels, the table sample_data says "
            f"{size[0]}x{size[1]}"
        )
    return image


def _is_truncated(data: bytes) -> bool:
    """OpenCV decodes half a JPEG to half a picture without an error, so the end is looked for.

    Inside the compressed data of a JPEG neither marker can occur.
    """
    if data[:2] == b"\xff\xd8":
        scan = data.rfind(_START_OF_SCAN)
        return scan < 0 or data.find(_END_OF_JPEG, scan) < 0
    if data[:4] == b"\x89PNG":
        return b"IEND" not in data[-64:]
    return False
