"""Drawing on the five visible faces of a unit box."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

Color = tuple[float, float, float]  # RGB in 0..1

FRONT, REAR, LEFT, RIGHT, TOP = range(5)
SIDES = (LEFT, RIGHT)
FACE_NORMALS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]], dtype=float)
STRIP_M = 2.5  # long faces are cut into strips, so that fog can grow along them

TIRE: Color = (0.07, 0.07, 0.08)
HUB: Color = (0.55, 0.55, 0.58)
WHITE: Color = (0.94, 0.94, 0.92)
SHADOW: Color = (0.03, 0.02, 0.03)


def mix(a: Color, b: Color, share_b: float) -> Color:
    """Blend of two colours."""
    red, green, blue = (x + (y - x) * share_b for x, y in zip(a, b, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Look:
    """Polygons of a unit box; within a face later ones lie on top.

    Attributes:
        corners: (p, 4, 3) in units of (length, width, height), from -0.5 to 0.5.
        face: (p,) face that holds each polygon.
        color: (p, 3) RGB in 0..1 before light and fog.
        is_face: (p,) True for the polygons that together cover the box, False for decals.
    """

    corners: np.ndarray
    face: np.ndarray
    color: np.ndarray
    is_face: np.ndarray

    @staticmethod
    def concatenate(looks: Sequence[Look]) -> Look:
        """All polygons of several looks, one after the other."""
        names = [field.name for field in fields(Look)]
        return Look(*(np.concatenate([getattr(look, n) for look in looks]) for n in names))


class Canvas:
    """Collects the polygons of one look.

    Coordinates on a face run from 0 to 1. On the side and top faces u runs from rear to front (so
    left and right sides mirror each other by themselves); on the front and rear faces u runs along
    the width. v runs from bottom to top, on the top face along the width.

    Args:
        size_wlh_m: typical size; decals given in metres keep their shape at that size.
    """

    def __init__(self, size_wlh_m: tuple[float, float, float]) -> None:
        self.size_wlh_m = size_wlh_m
        self._corners: list[np.ndarray] = []
        self._face: list[int] = []
        self._color: list[Color] = []
        self._is_face: list[bool] = []

    def quad(self, face: int, points: list[tuple[float, float]], color: Color) -> None:
        """A decal of four points (u, v) on a face."""
        u, v = (np.array(points) - 0.5).T  # (4, 2) -> (4,) each, from -0.5 to 0.5
        half = np.full(4, 0.5)
        columns = {
            FRONT: (half, u, v),
            REAR: (-half, u, v),
            LEFT: (u, half, v),
            RIGHT: (u, -half, v),
            TOP: (u, v, half),
        }[face]
        self._corners.append(np.stack(columns, axis=1))  # (4, 3)
        self._face.append(face)
        self._color.append(color)
        self._is_face.append(False)

    def rect(self, face: int, u0: float, v0: float, u1: float, v1: float, color: Color) -> None:
        """An axis-aligned decal."""
        self.quad(face, [(u0, v0), (u1, v0), (u1, v1), (u0, v1)], color)

    def sides(self, u0: float, v0: float, u1: float, v1: float, color: Color) -> None:
        """The same decal on the left and the right face."""
        for face in SIDES:
            self.rect(face, u0, v0, u1, v1, color)

    def fill(self, face: int, color_of: Color | Callable[[float], Color]) -> None:
        """The ground colour of a face; on the sides and the top it may depend on u."""
        strips = 1
        # A colour that depends on u needs some strips even on a short face.
        if face in (LEFT, RIGHT, TOP):
            strips = max(4 if callable(color_of) else 1, round(self.size_wlh_m[1] / STRIP_M))
        for i in range(strips):
            color = color_of((i + 0.5) / strips) if callable(color_of) else color_of
            self.rect(face, i / strips, 0.0, (i + 1) / strips, 1.0, color)
            self._is_face[-1] = True

    def body(self, color: Color, front: float = 0.48, rear: float = 0.62) -> None:
        """All faces: bright front, dark rear, sides in between, to make the heading visible.

        Args:
            color: of the middle.
            front: share of white in the front face.
            rear: share of black in the rear face.
        """

        def along(u: float) -> Color:
            if u < 0.22:
                return mix(color, SHADOW, 0.4)
            return mix(color, WHITE, 0.35) if u > 0.78 else color

        self.fill(FRONT, mix(color, WHITE, front))
        self.fill(REAR, mix(color, SHADOW, rear))
        for face in (LEFT, RIGHT, TOP):
            self.fill(face, along)

    def wheel(self, u: float, diameter_m: float) -> None:
        """A wheel on both sides, standing on the ground."""
        # Radii in units of the face, whose sides differ in length.
        ru = 0.5 * diameter_m / self.size_wlh_m[1]
        rv = 0.5 * diameter_m / self.size_wlh_m[2]
        for face in SIDES:
            # A hexagon of two trapezoids: widest at the hub.
            for low, high, a, b in ((0.0, rv, 0.5, 1.0), (rv, 2 * rv, 1.0, 0.5)):
                points = [(u - a * ru, low), (u + a * ru, low), (u + b * ru, high)]
                self.quad(face, [*points, (u - b * ru, high)], TIRE)
            self.rect(face, u - 0.4 * ru, 0.6 * rv, u + 0.4 * ru, 1.4 * rv, HUB)

    def done(self) -> Look:
        """The finished look."""
        return Look(
            np.array(self._corners),
            np.array(self._face),
            np.array(self._color),
            np.array(self._is_face),
        )
