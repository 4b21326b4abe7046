"""Pillow's resize of the part of a picture that is wanted, to the last bit."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Of the bicubic filter: pixels to each side at scale 1.
_SUPPORT = 2


def resized_crop(
    image: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int]
) -> np.ndarray:
    """Resizes a picture with Pillow's antialiased bicubic filter and cuts a rectangle out.

    Args:
        image: (height, width, 3) uint8.
        size: (width, height) of the whole picture after the resize.
        box: (left, top, right, bottom) of the rectangle in the resized picture, within it.

    Returns:
        (bottom - top, right - left, 3) uint8, equal in every bit to the full resize and a crop.
    """
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return np.zeros((max(bottom - top, 0), max(right - left, 0), 3), np.uint8)
    (height, width), bicubic = image.shape[:2], Image.Resampling.BICUBIC
    if not _is_filtered_along_rows_first((width, height), size):
        return np.asarray(Image.fromarray(image).resize(size, bicubic).crop(box))
    # Pillow filters along the rows, rounds to whole values, then filters along the columns. So the
    # first pass can leave out rows, and the second one columns, that the rectangle does not need.
    # The `box` of Pillow's own resize would change pixels: it is rounded to float32, and can turn
    # the order of the passes around.
    first, end = _rows_needed(top, bottom, height, height / size[1])
    rows = Image.fromarray(image[first:end]).resize((size[0], end - first), bicubic)
    # Back to the full height, so that each row keeps its weights. What is black is not seen.
    columns = rows.crop((left, -first, right, height - first))
    columns = columns.resize((right - left, size[1]), bicubic)
    return np.asarray(columns.crop((0, top, right - left, bottom)))


def _is_filtered_along_rows_first(stored: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether every version of Pillow does so, for (width, height) before and after the resize."""
    # Pillow 13 filters along the columns first where the height shrinks by more than twice as many
    # pixels as the width: never at one scale of a picture that is at most twice as high as wide.
    lost_columns, lost_rows = (before - after for before, after in zip(stored, size, strict=True))
    return lost_rows <= 0 or lost_rows <= 2 * lost_columns


def _rows_needed(top: int, bottom: int, height: int, scale: float) -> tuple[int, int]:
    """First and end of the stored rows that the rows top..bottom - 1 are made of, and a few more.

    `height` is that of the stored picture, which has `scale` rows to one resized row.
    """
    reach = _SUPPORT * max(scale, 1.0) + 2  # and two for rounding
    first, end = int((top + 0.5) * scale - reach), int((bottom - 0.5) * scale + reach)
    return max(first, 0), min(end + 1, height)
