"""One colour per class and one per id, for pictures and reports."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from itertools import cycle

Color = tuple[int, int, int]

# RGB, 0 to 255. Bright and of distinct hue: they are drawn as thin lines over photographs.
CLASS_COLORS: Mapping[str, Color] = {
    "car": (255, 159, 28),
    "truck": (239, 71, 71),
    "construction_vehicle": (199, 125, 60),
    "bus": (255, 221, 64),
    "trailer": (178, 120, 255),
    "barrier": (110, 138, 255),
    "motorcycle": (255, 92, 190),
    "bicycle": (46, 214, 180),
    "pedestrian": (64, 190, 255),
    "traffic_cone": (166, 226, 46),
}
TRUTH_COLOR: Color = (255, 255, 255)
BACKGROUND_COLOR: Color = (19, 24, 32)
MISSING_COLOR: Color = (34, 40, 50)
GRID_COLOR: Color = (54, 63, 76)
TEXT_COLOR: Color = (206, 214, 224)
EGO_COLOR: Color = (235, 239, 245)
# The golden section: hues of ids that follow each other are far apart, however many there are.
_HUE_STEP = (5**0.5 - 1) / 2
_SHADES = ((0.75, 1.0), (0.4, 1.0), (0.6, 0.8))  # saturation, value; in turn


def class_colors(names: Sequence[str]) -> dict[str, Color]:
    """A colour for each class; those that nuScenes does not have take the unused ones in turn."""
    # Such a class may stand for another of nuScenes, which is then not among the names.
    unused = [color for name, color in CLASS_COLORS.items() if name not in names]
    others = cycle(unused or CLASS_COLORS.values())
    return {name: CLASS_COLORS[name] if name in CLASS_COLORS else next(others) for name in names}


def id_color(track_id: int) -> Color:
    """The colour of an id, the same in all pictures. Ids that differ by less than 20 look apart."""
    saturation, value = _SHADES[track_id % len(_SHADES)]
    parts = colorsys.hsv_to_rgb(track_id * _HUE_STEP % 1.0, saturation, value)
    red, green, blue = (round(255 * part) for part in parts)
    return red, green, blue


def hex_color(color: Color) -> str:
    """The colour as "#rrggbb"."""
    return "#" + "".join(f"{value:02x}" for value in color)
