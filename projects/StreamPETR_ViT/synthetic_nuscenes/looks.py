"""How objects look: one hue per kind, and decals that tell class and heading.

Front faces are bright, rear faces dark with red lights, and the sides run from dark at the rear
to bright at the front. Decals never leave their face: the outline of an object is its box.
"""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np

from synthetic_nuscenes.categories import KIND_NAMES, KINDS
from synthetic_nuscenes.faces import (
    FRONT,
    LEFT,
    REAR,
    RIGHT,
    SIDES,
    TIRE,
    TOP,
    WHITE,
    Canvas,
    Color,
    Look,
    mix,
)

GLASS: Color = (0.13, 0.17, 0.22)
LAMP: Color = (1.0, 0.98, 0.82)
TAIL: Color = (0.88, 0.05, 0.06)
DARK: Color = (0.16, 0.15, 0.16)
SKIN: Color = (0.86, 0.66, 0.52)
HAIR: Color = (0.07, 0.05, 0.05)

# Two or three shades per kind, as (hue in degrees, saturation, value). No two kinds share a hue;
# cars are grey or blue, people are the only other kind without a strong hue.
SHADES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "car": ((225, 0.75, 0.75), (220, 0.08, 0.82), (225, 0.55, 0.45), (220, 0.05, 0.52)),
    "truck": ((185, 0.85, 0.72), (190, 0.65, 0.80), (182, 0.90, 0.52)),
    "construction_vehicle": ((48, 0.95, 0.92), (51, 0.80, 0.98), (46, 1.00, 0.78)),
    "bus": ((138, 0.80, 0.60), (132, 0.65, 0.72), (142, 0.90, 0.48)),
    "trailer": ((272, 0.55, 0.72), (278, 0.40, 0.80), (268, 0.65, 0.58)),
    "barrier": ((355, 0.75, 0.85), (0, 0.65, 0.92)),
    "motorcycle": ((318, 0.80, 0.85), (312, 0.90, 0.65), (322, 0.65, 0.95)),
    "bicycle": ((85, 0.85, 0.80), (80, 0.95, 0.65), (90, 0.70, 0.90)),
    "pedestrian": ((45, 0.22, 0.95), (30, 0.30, 0.90), (55, 0.15, 0.88)),
    "traffic_cone": ((20, 0.95, 0.98), (17, 1.00, 0.88)),
    "bicycle_rack": ((0, 0.0, 0.45),),
}


def _hsv(shade: tuple[float, float, float]) -> Color:
    hue, saturation, value = shade
    return colorsys.hsv_to_rgb(hue / 360.0, saturation, value)


def _lamps(c: Canvas, height: float, width: float, thick: float) -> None:
    """Pale lamps on the front corners and red ones at the rear."""
    for u in (0.04, 0.96 - width):
        c.rect(FRONT, u, height, u + width, height + thick, LAMP)
        c.rect(REAR, u, height, u + width, height + 1.3 * thick, TAIL)


def _car(c: Canvas, color: Color) -> None:
    c.body(color)
    c.rect(FRONT, 0.08, 0.55, 0.92, 0.92, GLASS)
    c.rect(FRONT, 0.25, 0.10, 0.75, 0.28, DARK)
    c.rect(REAR, 0.14, 0.62, 0.86, 0.90, GLASS)
    _lamps(c, 0.36, 0.22, 0.14)
    c.sides(0.22, 0.56, 0.48, 0.92, GLASS)
    c.sides(0.52, 0.56, 0.74, 0.92, GLASS)
    c.rect(TOP, 0.68, 0.1, 0.80, 0.9, GLASS)
    for u in (0.19, 0.81):
        c.wheel(u, 0.72)


def _truck(c: Canvas, color: Color) -> None:
    c.body(color)
    c.rect(FRONT, 0.08, 0.52, 0.92, 0.82, GLASS)
    c.rect(FRONT, 0.15, 0.12, 0.85, 0.32, DARK)
    c.rect(REAR, 0.485, 0.12, 0.515, 0.97, (0.5, 0.5, 0.5))  # between the two doors
    _lamps(c, 0.10, 0.18, 0.09)
    c.sides(0.72, 0.0, 0.75, 1.0, DARK)  # the gap behind the cab
    c.sides(0.80, 0.52, 0.97, 0.80, GLASS)
    c.sides(0.0, 0.0, 0.72, 0.14, DARK)
    for u in (0.14, 0.30, 0.86):
        c.wheel(u, 1.0)


def _bus(c: Canvas, color: Color) -> None:
    c.body(color)
    c.rect(FRONT, 0.05, 0.38, 0.95, 0.84, GLASS)
    c.rect(FRONT, 0.2, 0.87, 0.8, 0.97, (1.0, 0.75, 0.2))  # the line's number
    c.rect(REAR, 0.15, 0.62, 0.85, 0.88, GLASS)
    _lamps(c, 0.12, 0.2, 0.09)
    for i in range(7):
        c.sides(0.03 + 0.135 * i, 0.45, 0.145 + 0.135 * i, 0.80, GLASS)
    c.sides(0.0, 0.28, 1.0, 0.34, WHITE)
    for u in (0.22, 0.78):
        c.wheel(u, 1.0)


def _trailer(c: Canvas, color: Color) -> None:
    c.body(color, front=0.62, rear=0.72)
    c.rect(REAR, 0.485, 0.15, 0.515, 0.97, (0.55, 0.55, 0.55))
    c.rect(REAR, 0.0, 0.12, 1.0, 0.17, WHITE)
    _lamps(c, 0.02, 0.22, 0.08)
    for u in (0.25, 0.5, 0.75):  # seams of the box
        c.sides(u - 0.006, 0.3, u + 0.006, 1.0, mix(color, WHITE, 0.6))
    c.sides(0.0, 0.0, 1.0, 0.24, DARK)
    c.sides(0.0, 0.24, 1.0, 0.28, (0.6, 0.6, 0.6))
    for u in (0.08, 0.17, 0.26):
        c.wheel(u, 0.95)


def _construction_vehicle(c: Canvas, color: Color) -> None:
    c.body(color)
    c.sides(0.02, 0.0, 0.98, 0.26, TIRE)  # tracks in place of wheels
    c.sides(0.08, 0.07, 0.92, 0.19, (0.35, 0.35, 0.36))
    c.sides(0.52, 0.52, 0.80, 0.95, GLASS)
    c.sides(0.0, 0.52, 0.40, 1.0, mix(color, DARK, 0.55))
    c.rect(FRONT, 0.30, 0.50, 0.70, 0.93, GLASS)
    c.rect(FRONT, 0.05, 0.05, 0.95, 0.30, (0.45, 0.45, 0.47))
    for i in range(4):  # warning stripes
        tilt = 0.25 * i
        points = [(tilt, 0.1), (tilt + 0.11, 0.1), (tilt + 0.24, 0.34), (tilt + 0.13, 0.34)]
        c.quad(REAR, points, (0.95, 0.85, 0.1))
    _lamps(c, 0.42, 0.12, 0.1)


def _barrier(c: Canvas, color: Color) -> None:
    for face in (FRONT, REAR, LEFT, RIGHT, TOP):
        c.fill(face, WHITE)
    for face in (FRONT, REAR):
        for i in range(5):
            u = 0.02 + 0.2 * i
            points = [(u, 0.25), (u + 0.1, 0.25), (u + 0.16, 0.95), (u + 0.06, 0.95)]
            c.quad(face, points, color)
        c.rect(face, 0.0, 0.0, 1.0, 0.14, DARK)
    c.sides(0.0, 0.4, 1.0, 0.75, color)
    c.rect(TOP, 0.0, 0.4, 1.0, 0.6, color)


def _cycle(c: Canvas, color: Color, rider: bool, engine: bool) -> None:
    """A bicycle or motorcycle; with a rider the upper half is a dressed person."""
    c.body(color, front=0.5, rear=0.68)
    for u in (0.2, 0.8):
        c.wheel(u, 0.6 if engine else 0.65)
    c.rect(FRONT, 0.36, 0.0, 0.64, 0.40, TIRE)
    c.rect(REAR, 0.36, 0.0, 0.64, 0.34, TIRE)
    c.rect(FRONT, 0.34, 0.42, 0.66, 0.56, LAMP)
    c.rect(REAR, 0.28, 0.36, 0.72, 0.50, TAIL)
    if engine:
        c.sides(0.34, 0.14, 0.66, 0.40, (0.4, 0.4, 0.42))
    if not rider:
        c.sides(0.10, 0.62, 0.50, 0.72, DARK)
        return
    shirt_front, shirt_back = (0.93, 0.93, 0.98), (0.12, 0.12, 0.22)
    c.rect(FRONT, 0.1, 0.58, 0.9, 0.86, shirt_front)
    c.rect(REAR, 0.1, 0.54, 0.9, 0.86, shirt_back)
    c.rect(FRONT, 0.3, 0.84, 0.7, 1.0, SKIN)
    c.rect(REAR, 0.3, 0.84, 0.7, 1.0, DARK)
    c.sides(0.25, 0.50, 0.45, 0.86, shirt_back)
    c.sides(0.45, 0.50, 0.65, 0.86, shirt_front)
    c.sides(0.36, 0.84, 0.46, 1.0, DARK)
    c.sides(0.46, 0.84, 0.58, 1.0, SKIN)


def _motorcycle(c: Canvas, color: Color, rider: bool) -> None:
    _cycle(c, color, rider, engine=True)


def _bicycle(c: Canvas, color: Color, rider: bool) -> None:
    _cycle(c, color, rider, engine=False)


def _pedestrian(c: Canvas, color: Color, walking: bool) -> None:
    """Bright shirt and face in front, dark back and hair behind; sides show both halves."""
    back: Color = (0.22, 0.12, 0.10)
    legs: Color = (0.20, 0.20, 0.24)
    c.fill(FRONT, color)
    c.fill(REAR, back)
    c.fill(TOP, HAIR)
    for face in SIDES:
        c.fill(face, lambda u: color if u > 0.5 else back)
    for face in (FRONT, REAR):
        c.rect(face, 0.0, 0.0, 1.0, 0.42, legs)
        c.rect(face, 0.47, 0.0, 0.53, 0.38, mix(legs, WHITE, 0.55))
    c.sides(0.0, 0.0, 1.0, 0.42, legs)
    if walking:  # legs apart
        c.sides(0.40, 0.0, 0.60, 0.34, mix(legs, WHITE, 0.55))
    c.rect(FRONT, 0.22, 0.82, 0.78, 1.0, SKIN)
    c.rect(FRONT, 0.22, 0.96, 0.78, 1.0, DARK)
    c.rect(REAR, 0.22, 0.82, 0.78, 1.0, HAIR)
    c.sides(0.5, 0.82, 0.85, 1.0, SKIN)
    c.sides(0.15, 0.82, 0.5, 1.0, HAIR)


def _cone(c: Canvas, color: Color) -> None:
    for face in (FRONT, REAR, LEFT, RIGHT, TOP):
        c.fill(face, color)
    for face in (FRONT, REAR, LEFT, RIGHT):
        c.rect(face, 0.0, 0.0, 1.0, 0.10, DARK)
        c.rect(face, 0.0, 0.34, 1.0, 0.50, WHITE)
        c.rect(face, 0.0, 0.68, 1.0, 0.82, WHITE)


def _rack(c: Canvas, color: Color) -> None:
    """Only the bars at the ends: the bicycles inside stay visible."""
    for face in (FRONT, REAR, LEFT, RIGHT):
        c.rect(face, 0.0, 0.0, 1.0, 0.05, color)
        for u in (0.0, 0.97):
            c.rect(face, u, 0.0, u + 0.03, 0.6, color)


@lru_cache(maxsize=1)
def look_bank() -> tuple[Look, ...]:
    """All looks. Index them with `look_index`."""
    plain = {
        "car": _car,
        "truck": _truck,
        "construction_vehicle": _construction_vehicle,
        "bus": _bus,
        "trailer": _trailer,
        "barrier": _barrier,
        "traffic_cone": _cone,
        "bicycle_rack": _rack,
    }
    with_state = {"motorcycle": _motorcycle, "bicycle": _bicycle, "pedestrian": _pedestrian}
    looks = []
    for kind in KIND_NAMES:
        for shade in SHADES[kind]:
            for moving in (False, True):  # the order that `look_index` counts on
                canvas = Canvas(KINDS[kind].size_wlh_m)
                # Cycles have a rider, and people their legs apart, only in motion.
                if kind in plain:
                    plain[kind](canvas, _hsv(shade))
                else:
                    with_state[kind](canvas, _hsv(shade), moving)
                looks.append(canvas.done())
    return tuple(looks)


@lru_cache(maxsize=1)
def _first_look() -> tuple[int, ...]:
    # Two states per shade.
    sizes = [2 * len(SHADES[kind]) for kind in KIND_NAMES]
    return tuple(int(x) for x in np.cumsum([0, *sizes[:-1]]))


def look_index(kind: int, variant: int, moving: bool) -> int:
    """Index into `look_bank` for a kind, any non-negative variant number, and the state."""
    shades = len(SHADES[KIND_NAMES[kind]])
    return _first_look()[kind] + 2 * (variant % shades) + int(moving)
