"""Paints boxes into a picture, in true occlusion order, and measures what is visible of each.

Shape letters: n objects, p polygons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from synthetic_nuscenes.faces import FACE_NORMALS, Look
from synthetic_nuscenes.ground import FRACTION_BITS, fixed_point
from synthetic_nuscenes.looks import look_bank
from synthetic_nuscenes.occlusion import footprint_corners, paint_order
from synthetic_nuscenes.rig import PlacedCamera
from synthetic_nuscenes.scenery import FOG_END, Backdrop, Scenery, fog_share

NEAR_M = 0.1
# Objects are filled without OpenCV's smoothing, which would make them 0.4 px larger on every side,
# in a picture of twice the size; halving it smooths the edges.
FINE_SCALE = 2
ID_SCALE = 0.5  # the buffer that measures visibility is smaller than the picture
SUN_ELEVATION_RAD = math.radians(48.0)
AMBIENT, DIFFUSE = 0.68, 0.36
SHADOW_REACH = 0.35  # full shadows would darken half of the road
SHADOW_STRENGTH = (110,)  # of 256


@dataclass(frozen=True)
class Objects:
    """Boxes to paint.

    Attributes:
        boxes: (n, 7) x, y, z (centre), l, w, h, yaw, global frame.
        look: (n,) index into `looks.look_bank`.
        shade: (n,) factor on the brightness.
    """

    boxes: np.ndarray
    look: np.ndarray
    shade: np.ndarray

    def __len__(self) -> int:
        return len(self.look)

    def take(self, index: np.ndarray | list[int]) -> Objects:
        """Some of the objects, in the given order."""
        return Objects(self.boxes[index], self.look[index], self.shade[index])


@dataclass(frozen=True)
class Picture:
    """A painted picture.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        visible_px: (n,) pixels of the small id buffer that show each object.
        own_px: (n,) pixels that each would cover there alone, within the picture.
    """

    image: np.ndarray
    visible_px: np.ndarray
    own_px: np.ndarray


@dataclass(frozen=True)
class _Polygons:
    """Polygons in painting order: owner (p,), corners (p, 4, 3) in the camera frame, colours."""

    owner: np.ndarray
    corners: np.ndarray
    bgr: np.ndarray
    is_face: np.ndarray


@lru_cache(maxsize=1)
def _polygon_bank() -> tuple[Look, np.ndarray, np.ndarray]:
    """Polygons of all looks in one array, with the first row and the number of rows of each."""
    bank = look_bank()
    count = np.array([len(look.face) for look in bank])
    return Look.concatenate(bank), np.cumsum(count) - count, count


class Painter:
    """Paints one scene.

    Args:
        scenery: background and fog; None paints objects alone on black, without fog and shadows.
    """

    def __init__(self, scenery: Scenery | None) -> None:
        self.scenery = scenery
        azimuth = scenery.sun_azimuth_rad if scenery is not None else 0.6
        level = math.cos(SUN_ELEVATION_RAD)
        self._sun = np.array(
            [level * math.cos(azimuth), level * math.sin(azimuth), math.sin(SUN_ELEVATION_RAD)]
        )
        self._backdrops: dict[str, Backdrop] = {}

    def paint(self, placed: PlacedCamera, objects: Objects) -> Picture:
        """Paints the objects as one camera sees them."""
        width, height = placed.camera.size_px
        image = np.zeros((height, width, 3), dtype=np.uint8)
        near = self._in_view(placed, objects)
        # From far to near: what comes later hides what came before.
        near = near[paint_order(objects.boxes[near], placed.position_m)]
        seen = objects.take(near)
        if self.scenery is not None:
            self._paint_background(self.scenery, image, placed, seen)
        visible_px, own_px = np.zeros(len(objects)), np.zeros(len(objects))
        polygons = self._polygons(placed, seen)
        outlines = _outlines(placed, polygons.corners)
        visible_px[near], own_px[near] = _measure(image.shape, polygons, outlines, len(near))
        return Picture(_fill(image, polygons, outlines), visible_px, own_px)

    def _in_view(self, placed: PlacedCamera, objects: Objects) -> np.ndarray:
        """Indices of objects that may touch the picture and are not lost in the fog."""
        camera = placed.camera
        x, _, z = placed.to_camera(objects.boxes[:, :3]).T
        # Of a ball around the box: cheap, and never drops what shows.
        radius = 0.5 * np.linalg.norm(objects.boxes[:, 3:6], axis=1)
        inside = z > -radius
        left = (camera.principal_px[0] + 1) / camera.focal_px
        right = (camera.size_px[0] - camera.principal_px[0]) / camera.focal_px
        for side, tan in ((-x, left), (x, right)):
            inside &= side - tan * z < radius * math.hypot(1.0, tan)
        if self.scenery is not None:
            inside &= np.hypot(x, z) - radius < FOG_END * self.scenery.range_m
        return np.flatnonzero(inside)

    def _paint_background(
        self, scenery: Scenery, image: np.ndarray, placed: PlacedCamera, objects: Objects
    ) -> None:
        name = placed.camera.name
        if name not in self._backdrops:  # the calibration does not change within a scene
            self._backdrops[name] = Backdrop(scenery, placed)
        backdrop = self._backdrops[name]
        backdrop.sky(image, placed)
        backdrop.ground(image, placed)
        # Before the fog, so that it covers far shadows too.
        self._paint_shadows(image[backdrop.horizon :], backdrop.horizon, placed, objects)
        backdrop.fog(image)

    def _paint_shadows(
        self, ground: np.ndarray, horizon: int, placed: PlacedCamera, objects: Objects
    ) -> None:
        """Darkens the ground under and beside the objects, away from the sun."""
        mask = np.zeros(ground.shape[:2], dtype=np.uint8)
        corners = footprint_corners(objects.boxes)
        away = -self._sun[:2] / self._sun[2] * SHADOW_REACH
        # The footprint, and the footprint moved to where the top's shadow falls: (n, 8, 2).
        outline = np.concatenate((corners, corners + away * objects.boxes[:, None, 5:6]), axis=1)
        points = placed.to_camera(np.pad(outline, ((0, 0), (0, 0), (0, 1))))  # z = 0: (n, 8, 3)
        for polygon in points:
            # Seen from above the outline is convex and flat: its hull, cut before the camera.
            hull = cv2.convexHull(polygon[:, ::2].astype(np.float32))[:, 0]  # (h, 1, 2) -> (h, 2)
            flat = np.insert(hull, 1, polygon[0, 1], axis=1)
            flat = _clip_near(flat)
            if len(flat):
                pixels = placed.to_pixels(flat) - np.array([0, horizon])
                cv2.fillConvexPoly(
                    mask, _fixed(pixels), SHADOW_STRENGTH, cv2.LINE_AA, FRACTION_BITS
                )
        # In 16 bits: 8 bits of colour times 8 of strength.
        ground[:] = (ground * (256 - mask.astype(np.uint16))[:, :, None]) >> 8

    def _polygons(self, placed: PlacedCamera, objects: Objects) -> _Polygons:
        """All polygons that face the camera and touch the picture, in the order of `objects`."""
        boxes, (bank, first, count) = objects.boxes, _polygon_bank()
        owner = np.repeat(np.arange(len(boxes)), count[objects.look])  # (n,) -> (p,)
        # Rows of the bank; `owner` stands for the empty array where there is no object.
        row = np.concatenate(
            [np.arange(first[k], first[k] + count[k]) for k in objects.look] or [owner]
        )
        rotation = _rotations(boxes[:, 6])
        # The camera's position in each box's frame tells which faces it sees.
        eye = np.einsum("nji,nj->ni", rotation, placed.position_m - boxes[:, :3])
        facing = eye @ FACE_NORMALS.T > boxes[:, 3:6] @ np.abs(FACE_NORMALS).T / 2  # (n, 5)
        shown = facing[owner, bank.face[row]]
        owner, row = owner[shown], row[shown]
        # (3, 3) @ (n, 3, 3) * (n, 1, 3): columns scaled by length, width, height.
        unit_to_camera = placed.axes() @ rotation * boxes[:, None, 3:6]
        corners = np.einsum("pij,pkj->pki", unit_to_camera[owner], bank.corners[row])
        corners += placed.to_camera(boxes[:, :3])[owner][:, None]
        inside = _touches_picture(placed, corners)
        owner, row, corners = owner[inside], row[inside], corners[inside]
        normals = np.einsum("nij,fj->nfi", rotation, FACE_NORMALS)
        light = AMBIENT + DIFFUSE * np.maximum(normals @ self._sun, 0.0)  # (n, 5)
        strength = light[owner, bank.face[row]] * objects.shade[owner]
        bgr = np.minimum(bank.color[row][:, ::-1] * strength[:, None] * 255.0, 255.0)
        if self.scenery is not None:
            # One share per polygon; long faces are cut into strips for that (see `faces`).
            middle = corners.mean(axis=1)
            share = fog_share(np.hypot(middle[:, 0], middle[:, 2]), self.scenery.range_m)
            bgr += (self.scenery.fog_bgr - bgr) * share[:, None]
        return _Polygons(owner, corners, bgr, bank.is_face[row])


def _rotations(yaw_rad: np.ndarray) -> np.ndarray:
    """(n, 3, 3) rotations about +z."""
    rotation = np.zeros((len(yaw_rad), 3, 3))
    rotation[:, 0, 0] = rotation[:, 1, 1] = np.cos(yaw_rad)
    rotation[:, 1, 0] = np.sin(yaw_rad)
    rotation[:, 0, 1] = -rotation[:, 1, 0]
    rotation[:, 2, 2] = 1.0
    return rotation


def _fixed(pixels: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Pixel positions in OpenCV's fixed point, in a picture of `scale` times the size.

    A position of (u, v) is the centre of a pixel, whose corner is (u - 0.5, v - 0.5).
    """
    return fixed_point((pixels + 0.5) * scale - 0.5)


def _clip_near(points: np.ndarray) -> np.ndarray:
    """Cuts a polygon in camera coordinates (m, 3) at the near plane; may become empty."""
    kept = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if a[2] >= NEAR_M:
            kept.append(a)
        if (a[2] >= NEAR_M) != (b[2] >= NEAR_M):
            kept.append(a + (b - a) * ((NEAR_M - a[2]) / (b[2] - a[2])))
    return np.array(kept)


def _touches_picture(placed: PlacedCamera, corners: np.ndarray) -> np.ndarray:
    """Which polygons (p, 4, 3) are not wholly outside one of the picture's borders."""
    camera = placed.camera
    (cx, cy), (width, height), f = camera.principal_px, camera.size_px, camera.focal_px
    x, y, z = f * corners[..., 0], f * corners[..., 1], corners[..., 2]
    # Compared without dividing by z, which may be zero or negative.
    outside = (z < NEAR_M).all(axis=1)
    outside |= (x < -(cx + 1) * z).all(axis=1) | (x > (width - cx) * z).all(axis=1)
    outside |= (y < -(cy + 1) * z).all(axis=1) | (y > (height - cy) * z).all(axis=1)
    return ~outside


def _outlines(placed: PlacedCamera, corners: np.ndarray) -> np.ndarray:
    """Pixel outlines (p, 5, 2) of polygons (p, 4, 3) in the camera frame, cut at the near plane.

    A cut makes up to five corners of four; where there are fewer the last one is repeated.
    """
    padded = np.concatenate((corners, corners[:, 3:]), axis=1)  # (p, 4, 3) -> (p, 5, 3)
    for k in np.flatnonzero((corners[..., 2] < NEAR_M).any(axis=1)):
        cut = _clip_near(corners[k])
        padded[k] = cut[np.minimum(np.arange(5), len(cut) - 1)]
    return placed.to_pixels(padded)


def _fill(image: np.ndarray, polygons: _Polygons, outlines: np.ndarray) -> np.ndarray:
    """The picture with the polygons filled in."""
    height, width = image.shape[:2]
    size = (FINE_SCALE * width, FINE_SCALE * height)
    fine = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    fixed = _fixed(outlines, FINE_SCALE)
    for outline, color in zip(fixed, polygons.bgr.tolist(), strict=True):
        cv2.fillConvexPoly(fine, outline, color, cv2.LINE_8, FRACTION_BITS)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)


def _areas(outlines: np.ndarray, width: int, height: int) -> np.ndarray:
    """(p,) areas of convex outlines (p, 5, 2) within the picture, in pixels."""
    x, y = outlines[..., 0], outlines[..., 1]
    # The shoelace formula; a repeated corner adds nothing.
    areas = np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) / 2
    low, high = -0.5, np.array([width, height]) - 0.5
    # Only outlines that leave the picture need the slow intersection.
    leaves = ((outlines < low) | (outlines > high)).any(axis=(1, 2))
    border = np.array([[low, low], [high[0], low], high, [low, high[1]]], dtype=np.float32)
    for k in np.flatnonzero(leaves):
        hull = cv2.convexHull(outlines[k].astype(np.float32))
        areas[k], _ = cv2.intersectConvexConvex(hull, border)
    return areas


def _measure(
    shape: tuple[int, ...], polygons: _Polygons, outlines: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Visible and own pixels of each of `count` objects, in pixels of the id buffer."""
    height, width = shape[:2]
    # Faces only: decals never leave them, and the bars of a rack hide nothing.
    ids = np.zeros((round(height * ID_SCALE), round(width * ID_SCALE)), dtype=np.uint16)
    owner, outlines = polygons.owner[polygons.is_face], outlines[polygons.is_face]
    for outline, number in zip(_fixed(outlines, ID_SCALE), (owner + 1).tolist(), strict=True):
        cv2.fillConvexPoly(ids, outline, (number,), cv2.LINE_8, FRACTION_BITS)
    # Id 0 is the background.
    visible = np.bincount(ids.ravel(), minlength=count + 1)[1 : count + 1].astype(float)
    areas = _areas(outlines, width, height) * ID_SCALE**2
    return visible, np.bincount(owner, weights=areas, minlength=count)
