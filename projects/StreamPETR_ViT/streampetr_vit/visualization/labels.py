"""Labels that do not cover each other.

Rectangles are (left, top, right, bottom) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from streampetr_vit.visualization.colors import BACKGROUND_COLOR, TRUTH_COLOR, Color
from streampetr_vit.visualization.drawing import FONT, FloatArray, Image, text_width

SCALE = 0.38
_SIGN_PX, _MARGIN_PX, _GAP_PX = 7, 3, 2
HEIGHT_PX = 13
_LINES = 4  # above what a label belongs to: colours tell whose it is
TITLE_PX = (130, 24)  # width and height of what stands in the upper left corner of each picture
_BRIGHT = 140  # of 255: black is read on brighter colours, white on darker ones


@dataclass(frozen=True)
class Label:
    """A text on a colour, behind a square of another one.

    Attributes:
        text: ASCII.
        color: behind the text, RGB.
        sign: colour of the square, RGB.
    """

    text: str
    color: Color
    sign: Color

    def width_px(self) -> int:
        """Width of the whole."""
        return 2 + _SIGN_PX + text_width(self.text, SCALE) + 2 * _MARGIN_PX


def write_labels(
    image: Image,
    labels: Sequence[Label],
    things: FloatArray,
    title_px: tuple[int, int] = TITLE_PX,
) -> int:
    """Writes each label beside what it belongs to.

    The first ones have the choice. They cover no thing where there is room beside it. One that
    would cover another label is left out: neither could be read.

    Args:
        image: (H, W, 3) uint8 RGB, drawn on.
        labels: n of them.
        things: (n, 4) rectangles that they belong to.
        title_px: width and height of the upper left corner, which is left free.

    Returns:
        How many were written.
    """
    taken = np.array([(0.0, 0.0, *title_px)])
    for label, thing in zip(labels, things, strict=True):
        places = _places(image, label, thing)
        for others in (np.concatenate((taken, things)), taken):
            free = [place for place in places if not _meets(place, others)]
            if free:
                taken = np.concatenate((taken, free[:1]))
                _draw(image, label, free[0])
                break
    return len(taken) - 1


def rectangles(points: FloatArray) -> FloatArray:
    """(n, 4) rectangles around n times k points (n, k, 2)."""
    return np.concatenate((points.min(axis=1), points.max(axis=1)), axis=1)


def _places(image: Image, label: Label, thing: FloatArray) -> list[FloatArray]:
    """Above, below, right and left of a rectangle, and higher above; inside the picture."""
    size = np.array([label.width_px(), HEIGHT_PX])
    width, height = size
    left, top, right, bottom = thing
    middle = (top + bottom - height) / 2
    corners = (
        (left, top - height - _GAP_PX),
        (left, bottom + _GAP_PX),
        (right + _GAP_PX, middle),
        (left - width - _GAP_PX, middle),
        *((left, top - line * (height + _GAP_PX)) for line in range(2, _LINES + 1)),
    )
    room = np.maximum(np.array(image.shape[1::-1]) - size, 0)
    inside = [np.round(np.clip(corner, 0, room)) for corner in corners]
    return [np.concatenate((corner, corner + size)) for corner in inside]


def _meets(place: FloatArray, others: FloatArray) -> bool:
    apart = (place[:2] >= others[:, 2:]) | (place[2:] <= others[:, :2])  # (n, 2) by x and y
    return bool((~apart.any(axis=1)).any())


def _draw(image: Image, label: Label, place: FloatArray) -> None:
    left, top, right, bottom = place.astype(int)
    # The dark rim tells the label from a picture of the same colours.
    image[top:bottom, left:right] = BACKGROUND_COLOR
    split = left + 1 + _SIGN_PX
    image[top + 1 : bottom - 1, left + 1 : split] = label.sign
    image[top + 1 : bottom - 1, split + 1 : right - 1] = label.color
    brightness = float(np.dot(label.color, (0.299, 0.587, 0.114)))
    ink = BACKGROUND_COLOR if brightness > _BRIGHT else TRUTH_COLOR
    base = int(split) + _MARGIN_PX, int(bottom) - 3
    cv2.putText(image, label.text, base, FONT, SCALE, ink, 1, cv2.LINE_AA)
