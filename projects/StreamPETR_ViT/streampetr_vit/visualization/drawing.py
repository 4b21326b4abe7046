"""Antialiased primitives with sub-pixel ends, over OpenCV.

Images are (H, W, 3) uint8 RGB and are drawn on in place. Points are (x, y) in pixels, pixel
centres at integer coordinates.
"""

from __future__ import annotations

import re

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_vit.visualization.colors import BACKGROUND_COLOR, TEXT_COLOR, Color

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float64]

FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT_BACKGROUND_OPACITY = 0.65
_FRACTION_BITS = 4  # OpenCV's fixed-point coordinates: sixteenths of a pixel
_LONGEST_TEXT = 300  # no picture is as wide
_LARGEST_PX = 2**15  # beyond it they overflow


def blank(height: int, width: int, color: Color = BACKGROUND_COLOR) -> Image:
    """A picture (height, width, 3) of one colour."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = color
    return image


def draw_line(
    image: Image,
    start: FloatArray,
    end: FloatArray,
    color: Color,
    thickness: int = 1,
    dash_px: float = 0.0,
) -> None:
    """Draws a segment, or the part of it that is in the image.

    Args:
        image: drawn on.
        start, end: (2,) pixels.
        color: RGB.
        thickness: pixels.
        dash_px: length of a dash and of a gap; 0 draws a full line.
    """
    # The margin keeps the ends of thick lines out of sight.
    clipped = clip_to_image(start, end, image, margin=8)
    if clipped is None:
        return
    start, end = clipped
    length = float(np.hypot(*(end - start)))
    dashes = [(0.0, 1.0)]
    if dash_px > 0 and length > 0:
        begins = np.arange(0, length, 2 * dash_px)
        dashes = [(b / length, min(b + dash_px, length) / length) for b in begins]
    for begin, stop in dashes:
        a, b = (_fixed_point(start + share * (end - start)) for share in (begin, stop))
        cv2.line(image, a, b, color, thickness, cv2.LINE_AA, _FRACTION_BITS)


def draw_arrow(
    image: Image, start: FloatArray, tip: FloatArray, color: Color, thickness: int = 1
) -> None:
    """Draws an arrow between two points (2,)."""
    draw_line(image, start, tip, color, thickness)
    along = (tip - start) / max(float(np.hypot(*(tip - start))), 1e-9)
    across = np.array([-along[1], along[0]])
    for side in (-1, 1):
        draw_line(image, tip, tip - 6 * along + side * 3.5 * across, color, thickness)


def clip_to_image(
    start: FloatArray, end: FloatArray, image: Image, margin: int = 0
) -> tuple[FloatArray, FloatArray] | None:
    """The part of a segment that lies in the image, None if there is none.

    Args:
        start, end: (2,) pixels.
        image: gives the size.
        margin: pixels around the image that still count as inside.
    """
    # Boxes close to a camera project far outside the picture, beyond OpenCV's integers.
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    step = end - start
    # A segment along a side meets that side's line far away.
    divisor = np.where(step == 0, 1e-12, step)
    sides = np.array([[-margin, -margin], [image.shape[1] + margin, image.shape[0] + margin]])
    # Shares of the way at which the segment enters and leaves: (2, 2), entry and exit by x and y.
    entries, exits = np.sort((sides - start) / divisor, axis=0)
    first, last = max(entries.max(), 0.0), min(exits.min(), 1.0)
    return None if first > last else (start + first * step, start + last * step)


def fill_polygon(image: Image, points: FloatArray, color: Color, opacity: float = 1.0) -> None:
    """Fills a convex polygon, blended over the image.

    Args:
        image: drawn on.
        points: (k, 2) pixels; parts outside the image are left out.
        color: RGB.
        opacity: 0 to 1.
    """
    height, width = image.shape[:2]
    low = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, [width, height])
    if (low >= high).any() or np.abs(points).max() > _LARGEST_PX:
        return  # out of sight, or a face that touches the camera's plane
    # Only the rectangle around the polygon is copied and blended.
    patch = image[low[1] : high[1], low[0] : high[0]]
    filled = patch.copy()
    # From the corner of the patch, as OpenCV's integers.
    corners = np.round((points - low) * 2**_FRACTION_BITS).astype(np.int32)
    cv2.fillConvexPoly(filled, corners, color, cv2.LINE_AA, _FRACTION_BITS)
    patch[...] = cv2.addWeighted(filled, opacity, patch, 1 - opacity, 0)


def draw_text(
    image: Image,
    text: str,
    position: tuple[float, float],
    color: Color = TEXT_COLOR,
    scale: float = 0.45,
    background: Color | None = None,
) -> int:
    """Writes one line of text, moved to lie inside the image.

    Args:
        image: drawn on.
        text: shown as far as OpenCV's fonts have its characters (ASCII); "?" for the others.
        position: (x, y) of the left end of the base line, pixels.
        color: RGB.
        scale: font scale of OpenCV; 0.45 is about 10 pixels high.
        background: RGB of a box behind the text; None for no box.

    Returns:
        The width of the text in pixels.
    """
    text = _drawable(text)
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    # A margin of 3 pixels to the sides, for the box behind the text.
    x = int(np.clip(position[0], 3, max(3, image.shape[1] - width - 3)))
    y = int(np.clip(position[1], height + 3, max(height + 3, image.shape[0] - below)))
    if background is not None:
        left, top, right, bottom = x - 3, y - height - 3, x + width + 3, y + below
        box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
        fill_polygon(image, box, background, TEXT_BACKGROUND_OPACITY)
    cv2.putText(image, text, (x, y), FONT, scale, color, 1, cv2.LINE_AA)
    return width


def text_width(text: str, scale: float = 0.45) -> int:
    """Pixels that `draw_text` needs for a text."""
    return cv2.getTextSize(_drawable(text), FONT, scale, 1)[0][0]


def _drawable(text: str) -> str:
    return re.sub(r"[^ -~]", "?", text)[:_LONGEST_TEXT]


def draw_circle(image: Image, center: FloatArray, radius_px: float, color: Color) -> None:
    """Draws a thin circle."""
    radius = round(radius_px * 2**_FRACTION_BITS)
    cv2.circle(image, _fixed_point(center), radius, color, 1, cv2.LINE_AA, _FRACTION_BITS)


def _fixed_point(point: FloatArray) -> tuple[int, int]:
    x, y = np.round(np.asarray(point) * 2**_FRACTION_BITS).astype(int).tolist()
    return x, y
