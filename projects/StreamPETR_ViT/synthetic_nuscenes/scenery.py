"""Background of the pictures: sky and skyline, ground, fog. Colours are BGR (OpenCV)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from synthetic_nuscenes.ground import Ground, draw_ground
from synthetic_nuscenes.rig import PlacedCamera
from synthetic_nuscenes.world import World

PANORAMA_COLUMNS = 2048
PANORAMA_ROWS = 192
PANORAMA_TOP_TAN = 0.75
FOG_START, FOG_END = 0.8, 1.12  # in units of the range
TALLEST_M = 2.6  # how far the tallest objects (trailers) rise above the cameras


def fog_share(distance_m: np.ndarray, range_m: float) -> np.ndarray:
    """Share of the fog's colour at a horizontal distance: slight haze, then a wall of fog."""
    haze = 0.22 * np.minimum(distance_m / range_m, 1.0)
    wall = np.clip((distance_m / range_m - FOG_START) / (FOG_END - FOG_START), 0.0, 1.0)
    wall = wall * wall * (3.0 - 2.0 * wall)
    return 1.0 - (1.0 - haze) * (1.0 - wall)


@dataclass(frozen=True)
class Scenery:
    """What the background of a scene is painted from.

    Attributes:
        range_m: range that the fog follows.
        fog_bgr: (3,) float colour of the fog.
        panorama: (rows, 1.5 turns, 3) uint8; rows are tan(elevation), columns azimuth.
        ground: texture of the ground.
        sun_azimuth_rad: for light and shadows.
    """

    range_m: float
    fog_bgr: np.ndarray
    panorama: np.ndarray
    ground: Ground
    sun_azimuth_rad: float


def make_scenery(rng: np.random.Generator, world: World, range_m: float) -> Scenery:
    """Draws the textures of a scene."""
    fog = np.array([212.0, 208.0, 203.0]) * rng.uniform(0.92, 1.05)
    fog = np.minimum(fog + rng.uniform(-5, 5, size=3), 235.0)
    ground = draw_ground(rng, world, range_m)
    panorama = _panorama(rng, fog, range_m)
    return Scenery(range_m, fog, panorama, ground, world.sun_azimuth_rad)


def _sky(rng: np.random.Generator, fog: np.ndarray, tan: np.ndarray) -> np.ndarray:
    """(rows, columns, 3) float: from the fog's colour up to blue, with clouds."""
    zenith = np.array([205.0, 165.0, 120.0]) * rng.uniform(0.9, 1.05)
    share = np.clip(tan / 0.6, 0.0, 1.0)[:, None, None]
    coarse = rng.random((8, 64))
    coarse = np.concatenate((coarse, coarse[:, :2]), axis=1)  # the last column meets the first
    step = PANORAMA_COLUMNS // 64
    # Two columns more than needed, cut off below: interpolation differs at the borders.
    clouds = cv2.resize(coarse, (66 * step, PANORAMA_ROWS), interpolation=cv2.INTER_CUBIC)
    clouds = clouds[:, step : step + PANORAMA_COLUMNS, None]
    return fog * (1 - share) + zenith * share + np.clip(clouds - 0.5, 0, 1) * 70.0


def _add_houses(rng: np.random.Generator, picture: np.ndarray) -> None:
    """Grey houses with rows of windows; none has the hue of an object."""
    column = 0
    while column < PANORAMA_COLUMNS:
        width = int(rng.integers(24, 90))
        height = float(rng.uniform(0.10, 0.34)) if rng.random() < 0.75 else 0.0
        rows = int(height / PANORAMA_TOP_TAN * PANORAMA_ROWS)
        wall = np.array([1.0, 0.98, 0.96]) * rng.uniform(70, 165)
        bay, storey = int(rng.integers(6, 11)), int(rng.integers(7, 11))
        house = picture[:rows, column : column + width]
        is_window = (np.arange(rows)[:, None] % storey < 3) & (
            np.arange(house.shape[1])[None] % bay >= 2
        )
        house[:] = np.where(is_window[:, :, None], 0.72 * wall, wall)
        column += width


def _panorama(rng: np.random.Generator, fog: np.ndarray, range_m: float) -> np.ndarray:
    """Sky and skyline all around; the foot of the houses disappears in the fog."""
    tan = (np.arange(PANORAMA_ROWS) + 0.5) / PANORAMA_ROWS * PANORAMA_TOP_TAN
    picture = _sky(rng, fog, tan)
    _add_houses(rng, picture)
    # Where an object at the end of the view can stand before it, the sky has the fog's colour:
    # an object lost in the fog must not show as an outline against a house.
    foot = TALLEST_M / (FOG_END * range_m)
    clear = np.clip((tan - foot) / (1.4 * foot + 0.03), 0.0, 0.75)[:, None, None]
    picture = np.clip(picture * clear + fog * (1 - clear), 0, 255).astype(np.uint8)
    # Half a turn once more: a view that crosses north stays in one piece.
    return np.concatenate((picture, picture[:, : PANORAMA_COLUMNS // 2]), axis=1)


class Backdrop:
    """Paints the background of one camera of one scene; keeps what does not change over time.

    Shape letters: H W picture, S rows above the horizon, G rows below it.

    Args:
        scenery: of the scene.
        placed: the camera; only its calibration and its height are kept.
    """

    def __init__(self, scenery: Scenery, placed: PlacedCamera) -> None:
        camera = placed.camera
        (width, height), (cx, cy), f = camera.size_px, camera.principal_px, camera.focal_px
        self.scenery = scenery
        self.horizon = min(max(math.floor(cy) + 1, 0), height)
        v = np.arange(height)
        # Of each picture column, counter-clockwise from the camera's direction: (W,).
        azimuth = -np.arctan((np.arange(width) - cx) / f)
        self._columns = azimuth * PANORAMA_COLUMNS / (2 * math.pi)
        # Tangent of each pixel's elevation: (S, 1) * (W,) -> (S, W).
        tan = (cy - v[: self.horizon])[:, None] / f * np.cos(azimuth)
        rows = tan / PANORAMA_TOP_TAN * PANORAMA_ROWS - 0.5
        self._rows = np.clip(rows, 0, PANORAMA_ROWS - 1).astype(np.float32)
        # Depth at which each row meets the ground: (G,).
        depth = placed.position_m[2] * f / (v[self.horizon :] - cy)
        clear = 1.0 - fog_share(depth[:, None] / np.cos(azimuth), scenery.range_m)[:, :, None]
        # Blending in 8.8 fixed point: image * clear + fog * (1 - clear).
        clear = np.broadcast_to(np.round(clear * 256.0), (*clear.shape[:2], 3))
        self._clear = clear.astype(np.uint16)
        self._fog = np.round(scenery.fog_bgr * (256.0 - clear) + 127.0).astype(np.uint16)

    def sky(self, image: np.ndarray, placed: PlacedCamera) -> None:
        """Fills the rows above the horizon."""
        columns = self._columns + placed.yaw_rad * PANORAMA_COLUMNS / (2 * math.pi)
        # Into the first turn; the panorama's extra half turn holds the rest of the picture.
        columns = columns - math.floor(columns.min() / PANORAMA_COLUMNS) * PANORAMA_COLUMNS
        map_x = np.tile(columns.astype(np.float32), (self.horizon, 1))
        panorama = self.scenery.panorama
        image[: self.horizon] = cv2.remap(panorama, map_x, self._rows, cv2.INTER_LINEAR)

    def ground(self, image: np.ndarray, placed: PlacedCamera) -> None:
        """Fills the rows below the horizon, without fog."""
        camera, ground = placed.camera, self.scenery.ground
        (width, height), (cx, cy), f = camera.size_px, camera.principal_px, camera.focal_px
        right, _, forward = placed.axes()
        eye = placed.position_m[:2] - np.array(ground.origin_m)
        z = placed.position_m[2]
        # Pixel (u, v) meets the ground at eye + z / (v - cy) * (f forward + (u - cx) right);
        # in homogeneous coordinates with w = v - cy that is linear in (u, v, 1).
        w = np.array([0.0, 1.0, -cy])
        x, y = (
            np.array([z * right[i], eye[i], -eye[i] * cy + z * (f * forward[i] - cx * right[i])])
            for i in (0, 1)
        )
        s, rows = ground.pixels_per_m, ground.image.shape[0]
        to_texture = np.stack((s * x - 0.5 * w, (rows - 0.5) * w - s * y, w))
        # The part of the picture below the horizon starts at row 0.
        below_horizon = np.array([[1.0, 0, 0], [0, 1, self.horizon], [0, 0, 1]])
        cv2.warpPerspective(
            ground.image,
            to_texture @ below_horizon,
            (width, height - self.horizon),
            dst=image[self.horizon :],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def fog(self, image: np.ndarray) -> None:
        """Blends the fog over the rows below the horizon."""
        ground = image[self.horizon :]
        ground[:] = (ground * self._clear + self._fog) >> 8
