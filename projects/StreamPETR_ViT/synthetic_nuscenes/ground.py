"""The road seen from above: as a texture for the pictures, and as the map's drivable area."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from synthetic_nuscenes import lanes
from synthetic_nuscenes.path import RoadPath
from synthetic_nuscenes.world import World

MAP_PIXELS_PER_M = 10.0  # the devkit's resolution of map masks
MAP_MARGIN_M = 60.0  # the devkit cuts +-57 m around the ego car from the mask when it draws it
TEXTURE_PIXELS_PER_M = 12.8
MAX_TEXTURE_PX = 3600
GRID_M = 10.0
FRACTION_BITS = 4  # sub-pixel digits of OpenCV's polygon filling
_TILE_PX = 512

VERGE = (88, 112, 118)  # BGR, like all colours of this file
SIDEWALK = (150, 152, 150)
CURB = (120, 122, 124)
ASPHALT = (84, 82, 80)
WHITE_PAINT = (222, 222, 222)
YELLOW_PAINT = (90, 200, 225)
BAY_PAINT = (190, 190, 190)
JOINT = (118, 120, 118)


@dataclass(frozen=True)
class Ground:
    """Texture of the ground.

    Attributes:
        image: (h, w, 3) uint8 BGR; the last row lies at the smallest y.
        origin_m: global x of the left border and y of the lower border.
        pixels_per_m: scale.
    """

    image: np.ndarray
    origin_m: tuple[float, float]
    pixels_per_m: float


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Pixel positions as OpenCV's polygon filling takes them, int32."""
    return np.round(pixels * (1 << FRACTION_BITS)).astype(np.int32)


class _BirdsEye:
    """Paints bands of the road onto a picture with y upwards."""

    def __init__(
        self, image: np.ndarray, path: RoadPath, origin_m: np.ndarray, pixels_per_m: float
    ) -> None:
        self._image, self._path = image, path
        self._origin_m, self._scale = origin_m, pixels_per_m

    def band(self, color: tuple[int, ...], s_m: np.ndarray, left_m: float, right_m: float) -> None:
        """Fills the area between two parallels of the road, along the given arc lengths."""
        left = self._path.position(s_m, left_m)
        right = self._path.position(s_m[::-1], right_m)
        xy = (np.concatenate((left, right)) - self._origin_m) * self._scale
        # The first row of a picture is its upper border.
        xy[:, 1] = self._image.shape[0] - xy[:, 1]
        outline = fixed_point(xy)
        # A mask (one channel) must not get grey borders.
        smooth = cv2.LINE_AA if self._image.ndim == 3 else cv2.LINE_8
        cv2.fillPoly(self._image, [outline], color, smooth, FRACTION_BITS)


def _arc_lengths(world: World, view_m: float) -> np.ndarray:
    """Arc lengths of all of the road that can come into view."""
    return np.linspace(-view_m, world.ego_speed_mps * world.duration_s + view_m, 240)


def view_margin(range_m: float) -> float:
    """How far around the ego car the ground is drawn: a little farther than the fog's end."""
    return 1.15 * range_m + 2.0


def _draw_road(birds_eye: _BirdsEye, s: np.ndarray) -> None:
    # From the widest band to the narrowest: each covers the middle of the one before.
    edge, walk = lanes.ROAD_HALF_WIDTH_M, lanes.SIDEWALK_HALF_WIDTH_M
    birds_eye.band(SIDEWALK, s, walk, -walk)
    for start in np.arange(s[0], s[-1], 2.5):  # joints between the slabs of the sidewalk
        birds_eye.band(JOINT, np.array([start, start + 0.08]), walk, -walk)
    birds_eye.band(CURB, s, edge + 0.2, -edge - 0.2)
    birds_eye.band(ASPHALT, s, edge, -edge)
    for d in (1.62, 1.84):  # double line between the directions
        birds_eye.band(YELLOW_PAINT, s, d + 0.06, d - 0.06)
    for start in np.arange(s[0], s[-1], 6.0):  # dashes between two lanes of one direction
        birds_eye.band(WHITE_PAINT, np.linspace(start, start + 3.0, 5), -1.65, -1.80)
    for side in (-1, 1):
        line = side * (lanes.SEPARATOR_D_M - 0.4)
        birds_eye.band(WHITE_PAINT, s, line + 0.07, line - 0.07)
        for start in np.arange(s[0], s[-1], 7.0):  # parking bays
            bay = np.array([start, start + 0.14])
            birds_eye.band(BAY_PAINT, bay, side * (lanes.SEPARATOR_D_M + 0.6), side * 9.3)


def _add_texture(rng: np.random.Generator, ground: Ground) -> np.ndarray:
    """Adds noise in two sizes and a grid that is fixed to the world: cues of motion and scale."""
    height, width = ground.image.shape[:2]
    fine = rng.integers(-5, 6, size=(_TILE_PX, _TILE_PX))
    coarse = cv2.resize(rng.normal(0, 9, size=(64, 64)), (_TILE_PX, _TILE_PX))
    tile = (fine + coarse).astype(np.int16)
    # One tile, repeated: cheaper than random numbers for every pixel of the texture.
    repeats = (height // _TILE_PX + 1, width // _TILE_PX + 1)
    noise = np.tile(tile, repeats)[:height, :width].copy()
    # Views of the noise whose first axis is x, then y (upwards).
    for view, low in ((noise.T, ground.origin_m[0]), (noise[::-1], ground.origin_m[1])):
        first = math.ceil(low / GRID_M) * GRID_M - low
        for offset in np.arange(first, len(view) / ground.pixels_per_m, GRID_M):
            at = int(offset * ground.pixels_per_m)
            view[max(at - 1, 0) : at + 2] -= 22
    textured = ground.image.astype(np.int16) + noise[:, :, None]
    return np.clip(textured, 0, 255).astype(np.uint8)


def draw_ground(rng: np.random.Generator, world: World, range_m: float) -> Ground:
    """Draws the texture of a scene.

    Args:
        rng: of the noise.
        world: road and duration.
        range_m: range of view.
    """
    view = view_margin(range_m)
    s = _arc_lengths(world, view)
    points = world.path.position(s)
    low, high = points.min(axis=0) - view, points.max(axis=0) + view
    # Long scenes get a coarser texture, which bounds memory.
    scale = min(TEXTURE_PIXELS_PER_M, MAX_TEXTURE_PX / float((high - low).max()))
    width, height = np.ceil((high - low) * scale).astype(int)
    image = np.full((height, width, 3), VERGE, dtype=np.uint8)
    _draw_road(_BirdsEye(image, world.path, low, scale), s)
    ground = Ground(image, (float(low[0]), float(low[1])), scale)
    return Ground(_add_texture(rng, ground), ground.origin_m, scale)


def draw_map_mask(world: World, range_m: float) -> np.ndarray:
    """Drivable area as nuScenes stores it: 0.1 m per pixel, 255 on the road, y upwards.

    Returns:
        (h, w) uint8; the left border is x = 0 and the lower border y = 0 of the global frame.
    """
    view = view_margin(range_m)
    s = _arc_lengths(world, view)
    high = world.path.position(s).max(axis=0) + view + MAP_MARGIN_M
    width, height = np.ceil(high * MAP_PIXELS_PER_M).astype(int)
    mask = np.zeros((height, width), dtype=np.uint8)
    half = lanes.ROAD_HALF_WIDTH_M
    _BirdsEye(mask, world.path, np.zeros(2), MAP_PIXELS_PER_M).band((255,), s, half, -half)
    return mask
