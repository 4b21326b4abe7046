"""Image and scene augmentation: what is drawn, what it does to pictures and to matrices.

A configuration (`ImageAugmentation`, `SceneAugmentation`) draws; a draw (`ImageDraw`, `SceneDraw`)
is a plain value that pictures, matrices and boxes are transformed by. Source:
ResizeCropFlipRotImage and GlobalRotScaleTransImage of StreamPETR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from streampetr_vit.data.resized_crop import resized_crop
from streampetr_vit.errors import InputError


@dataclass(frozen=True)
class ImageDraw:
    """Resize, then crop, then flip from left to right.

    The crop may reach beyond the picture, where it is black.
    """

    scale: float  # factor on the stored picture
    resized_size: tuple[int, int]  # (width, height) in pixels after the resize
    crop_origin: tuple[int, int]  # (x, y) in the resized picture; may be negative
    final_size: tuple[int, int]  # (H, W) in pixels of the crop
    flip: bool = False

    def matrix(self) -> np.ndarray:
        """(3, 3) float32: homogeneous pixels of the stored picture -> of the final picture.

        Quirk: released weights were trained with matrices that are off by up to a pixel.
        """
        matrix = np.eye(3, dtype=np.float32)
        # The drawn scale, not the truncated size over the stored size, and no half-pixel offset.
        matrix[0, 0] = matrix[1, 1] = self.scale
        matrix[:2, 2] = (-self.crop_origin[0], -self.crop_origin[1])
        if self.flip:
            matrix[0] *= -1  # u -> W - u, where the picture has W - 1 - u
            matrix[0, 2] += self.final_size[1]
        return matrix

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Transforms a picture: (height, width, 3) -> (H, W, 3) uint8, channels in any order."""
        (x, y), (height, width) = self.crop_origin, self.final_size
        if (image.shape[1], image.shape[0]) != self.resized_size:
            # Of the crop, what lies in the resized picture.
            left, right = np.clip((x, x + width), 0, self.resized_size[0]).tolist()
            top, bottom = np.clip((y, y + height), 0, self.resized_size[1]).tolist()
            # Released weights expect Pillow's antialiased bicubic filter.
            image = resized_crop(image, self.resized_size, (left, top, right, bottom))
            x, y = x - left, y - top
        cropped = _crop(image, (x, y), self.final_size)
        return cv2.flip(cropped, 1) if self.flip else cropped

    def write(self, image: np.ndarray, planes: np.ndarray) -> None:
        """Transforms a picture into planes: (height, width, 3) -> (3, H, W) uint8, same order."""
        cv2.split(self.apply(image), list(planes))


def _crop(image: np.ndarray, origin: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Cuts a rectangle out of a picture; what lies outside is 0."""
    (x, y), (height, width) = origin, size
    top, left = max(y, 0), max(x, 0)
    inside = image[top : max(y + height, 0), left : max(x + width, 0)]
    if inside.shape[:2] == (height, width):  # nothing lies outside, nothing is copied
        return inside
    cropped = np.zeros((height, width, *image.shape[2:]), image.dtype)
    rows, columns = inside.shape[:2]
    cropped[top - y : top - y + rows, left - x : left - x + columns] = inside
    return cropped


@dataclass(frozen=True)
class ImageAugmentation:
    """How pictures are brought to the network's input size.

    Attributes:
        final_size: (H, W) in pixels.
        resize_range: factors on the stored picture that training draws from, uniformly. (0.47,
            0.625) of 1600x900 pictures suits 320x800; double it for pictures of 800x450. It is
            meant for the first camera's pictures; those of another size fill the input as much.
        flip_probability: of a left-right flip in training.
        bottom_crop_range: fraction of the resized height to cut off below, drawn in training; the
            middle of the range in evaluation.
    """

    final_size: tuple[int, int]
    resize_range: tuple[float, float]
    flip_probability: float = 0.5
    bottom_crop_range: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name in ("final_size", "resize_range", "bottom_crop_range"):
            object.__setattr__(self, name, _pair(name, getattr(self, name)))
        size, (low, high), crop = self.final_size, self.resize_range, self.bottom_crop_range
        whole = all(side >= 1 and int(side) == side for side in size)
        _require(whole, "final_size must be (H, W) in whole pixels", size)
        _require(0 < low <= high, "resize_range must be 0 < low <= high", self.resize_range)
        crops = 0 <= crop[0] <= crop[1] < 1
        _require(crops, "bottom_crop_range must be 0 <= low <= high < 1", crop)
        chance = self.flip_probability
        _require(0 <= chance <= 1, "flip_probability must be in [0, 1]", chance)

    @property
    def is_fixed(self) -> bool:
        """Whether scale, cut and flip are the same in every draw."""
        ranges = (self.resize_range, self.bottom_crop_range)
        return all(low == high for low, high in ranges) and self.flip_probability == 0

    def draw(
        self, stored_sizes: Sequence[tuple[int, int]], rng: np.random.Generator
    ) -> list[ImageDraw]:
        """Draws for training, one for each camera of a frame.

        Args:
            stored_sizes: (width, height) of each camera's stored picture.
            rng: source of all randomness.
        """
        # One set of numbers serves all cameras: what two of them see still fits together.
        scale = float(rng.uniform(*self.resize_range))
        bottom = float(rng.uniform(*self.bottom_crop_range))
        across = float(rng.uniform())
        flip = rng.random() < self.flip_probability
        filling = self._filling_scale(stored_sizes[0])
        # The ratio is exactly 1 for pictures of one size: their scale keeps every bit.
        return [
            self.place(size, scale * (self._filling_scale(size) / filling), bottom, across, flip)
            for size in stored_sizes
        ]

    def fixed(self, stored_size: tuple[int, int]) -> ImageDraw:
        """The draw of evaluation: the smallest scale that fills the input, centred, not flipped."""
        scale, bottom = self._filling_scale(stored_size), sum(self.bottom_crop_range) / 2
        return self.place(stored_size, scale, bottom, across=0.5, flip=False)

    def _filling_scale(self, stored_size: tuple[int, int]) -> float:
        (width, height), (final_height, final_width) = stored_size, self.final_size
        return max(final_height / height, final_width / width)

    def place(
        self, stored_size: tuple[int, int], scale: float, bottom: float, across: float, flip: bool
    ) -> ImageDraw:
        """The crop of a resized picture.

        Args:
            stored_size: (width, height) of the stored picture.
            scale: factor of the resize.
            bottom: fraction of the resized height to cut off below.
            across: where the crop lies in the surplus width, 0 is left and 1 is right.
            flip: mirror the crop.
        """
        # Rounded down as in the reference.
        width, height = int(stored_size[0] * scale), int(stored_size[1] * scale)
        final_height, final_width = self.final_size
        left = int(across * max(0, width - final_width))
        top = int((1 - bottom) * height) - final_height  # the road stays, the sky is cut off
        return ImageDraw(scale, (width, height), (left, top), self.final_size, bool(flip))


@dataclass(frozen=True)
class SceneDraw:
    """A change of the lidar frame: rotation about +z, then scale, then translation."""

    yaw_rad: float  # counter-clockwise
    scale: float  # uniform
    translation_m: tuple[float, float, float] = (0.0, 0.0, 0.0)  # (x, y, z)

    def matrix(self) -> np.ndarray:
        """(4, 4) float64: points of the recorded lidar frame -> of the augmented lidar frame."""
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        matrix[:3, 3] = self.translation_m
        return matrix


@dataclass(frozen=True)
class SceneAugmentation:
    """Random changes of the lidar frame in training; every frame has its own."""

    yaw_range_rad: tuple[float, float] = (-0.3925, 0.3925)  # uniform, about +z
    scale_range: tuple[float, float] = (0.95, 1.05)  # uniform
    translation_std_m: tuple[float, float, float] = (0.0, 0.0, 0.0)  # (x, y, z), normal

    def __post_init__(self) -> None:
        for name in ("yaw_range_rad", "scale_range"):
            object.__setattr__(self, name, _pair(name, getattr(self, name)))
        spread = tuple(self.translation_std_m)
        object.__setattr__(self, "translation_std_m", spread)
        low, high = self.scale_range
        _require(0 < low <= high, "scale_range must be 0 < low <= high", self.scale_range)
        three = len(spread) == 3 and min(spread) >= 0
        _require(three, "translation_std_m must be three values >= 0", spread)

    def draw(self, rng: np.random.Generator) -> SceneDraw:
        """Draws for training."""
        yaw = float(rng.uniform(*self.yaw_range_rad))
        scale = float(rng.uniform(*self.scale_range))
        x, y, z = rng.normal(scale=self.translation_std_m, size=3).tolist()
        return SceneDraw(yaw, scale, (x, y, z))


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise InputError(f"{rule}, not {value}")


def _pair(name: str, values: Sequence[float]) -> tuple[float, float]:
    is_pair = np.ndim(values) == 1 and len(values) == 2  # a text has no dimension
    _require(is_pair, f"{name} must be two numbers", values)
    return values[0], values[1]  # a config file yields lists
