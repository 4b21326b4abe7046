"""Drawn frames inside the report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.visualization.frame_picture import encode_jpeg


@dataclass(frozen=True)
class Picture:
    """A drawn frame.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        caption: one line.
    """

    image: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class PictureGroup:
    """Pictures that belong together, such as consecutive frames.

    Attributes:
        title: heading.
        text: what the reader sees.
        pictures: in order.
    """

    title: str
    text: str
    pictures: Sequence[Picture]


def render_picture_group(group: PictureGroup) -> str:
    """A section with the pictures inside the page."""
    figures = "".join(_render_picture(picture) for picture in group.pictures)
    return (
        f'<section><h2>{escape(group.title)}</h2><p class="soft">{escape(group.text)}</p>'
        f"{figures}</section>"
    )


def _render_picture(picture: Picture) -> str:
    # JPEG: as PNG a page of seven frames would be tens of megabytes.
    data = base64.b64encode(encode_jpeg(picture.image)).decode()
    return (
        f'<figure class="picture"><img alt="{escape(picture.caption)}" '
        f'src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )
