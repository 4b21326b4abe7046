"""What is around the pictures of one moment: a header above, a legend below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampetr_vit.visualization.camera_grid import join_rows
from streampetr_vit.visualization.colors import TRUTH_COLOR, Color, class_colors
from streampetr_vit.visualization.drawing import (
    Image,
    blank,
    draw_line,
    draw_text,
    fill_polygon,
    text_width,
)

HEADER_PX, LEGEND_PX = 26, 28  # heights of one line
_LINE_PX = 20  # height of each further one
_MARGIN_PX, _BETWEEN_PX = 10, 22
_SQUARE = np.array([[0.0, -6.0], [12.0, -6.0], [12.0, 6.0], [0.0, 6.0]])


@dataclass(frozen=True)
class Entry:
    """A text with what stands in front of it.

    Attributes:
        text: in one line.
        color: of the sign, RGB; None for no sign.
        dashed: whether the sign is a dashed line; otherwise it is a square.
        scale: font scale.
    """

    text: str
    color: Color | None = None
    dashed: bool = False
    scale: float = 0.45

    def sign_px(self) -> int:
        """Width of the sign with the space behind it."""
        return 0 if self.color is None else 34 if self.dashed else 18

    def width_px(self) -> int:
        """Width of the whole."""
        return self.sign_px() + text_width(self.text, self.scale)


def compose(
    cameras: Image,
    above: Image,
    header: Sequence[str],
    class_names: Sequence[str],
    with_truth: bool = True,
) -> Image:
    """The cameras on the left, the view from above on the right, header and legend around.

    Args:
        cameras: (H, W, 3) uint8 RGB.
        above: (H, W', 3), of the same height.
        header: what is written above; as many lines as it needs.
        class_names: whose colours the legend shows.
        with_truth: whether it says what true boxes look like.

    Returns:
        (H + header + legend, W + gap + W', 3) uint8 RGB.
    """
    middle = join_rows([[cameras, above]])
    title = [Entry(text, scale=0.5) for text in header]
    lines = (
        strip(title, middle.shape[1], HEADER_PX),
        strip(_legend(class_names, with_truth), middle.shape[1], LEGEND_PX),
    )
    return np.vstack((lines[0], middle, lines[1]))


def _legend(names: Sequence[str], with_truth: bool) -> list[Entry]:
    entries = [Entry(name.replace("_", " "), color) for name, color in class_colors(names).items()]
    if with_truth:
        entries.append(Entry("true box", TRUTH_COLOR, dashed=True))
    return [*entries, Entry("filled side = front,  arrow = way of one second")]


def strip(entries: Sequence[Entry], width: int, first_line_px: int) -> Image:
    """A header or a legend: entries from left to right, in as many lines as they need.

    Args:
        entries: what is written.
        width: of the strip, pixels.
        first_line_px: height of the first line.

    Returns:
        (H, width, 3) uint8 RGB.
    """
    places, left, line = list[tuple[int, int]](), _MARGIN_PX, 0
    for entry in entries:
        if left > _MARGIN_PX and left + entry.width_px() + _MARGIN_PX > width:
            left, line = _MARGIN_PX, line + 1
        places.append((left, line))
        left += entry.width_px() + _BETWEEN_PX
    strip = blank(first_line_px + line * _LINE_PX, width)
    for entry, (left, line) in zip(entries, places, strict=True):
        _draw_entry(strip, entry, left, first_line_px // 2 + line * _LINE_PX)
    return strip


def _draw_entry(strip: Image, entry: Entry, left: int, middle: int) -> None:
    start = np.array([left, middle], np.float64)
    if entry.color is not None and entry.dashed:
        draw_line(strip, start, start + np.array([28.0, 0.0]), entry.color, dash_px=4)
    elif entry.color is not None:
        fill_polygon(strip, _SQUARE + start, entry.color)
    draw_text(strip, entry.text, (left + entry.sign_px(), middle + 5), scale=entry.scale)
