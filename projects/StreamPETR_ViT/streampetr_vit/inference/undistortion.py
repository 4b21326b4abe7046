"""Straightens pictures of lenses that bend lines: the network takes pinhole cameras.

Shape letters: H W height and width of a camera's pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from streampetr_vit.errors import InputError
from streampetr_vit.structures import Camera, Distortion

FloatArray = NDArray[np.float64]
_MARGIN_PX = 16  # beyond the picture everything is black
_STEPS = 4096  # of the radii at which a lens is looked at


@dataclass(frozen=True, eq=False)
class UndistortedCamera:
    """A camera without distortion, and what makes its pictures of those of the real one.

    Attributes:
        camera: the pinhole camera of the straight pictures, of the same size and place.
        maps: of OpenCV's `remap`, (H, W, 2) int16 and (H, W) uint16; None where the pictures are
            straight already.
    """

    camera: Camera
    maps: tuple[np.ndarray, np.ndarray] | None

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The straight picture.

        Args:
            image: (H, W, 3) uint8, of any order of colours.

        Returns:
            (H, W, 3) uint8, black where the lens saw nothing; `image` itself without distortion.

        Raises:
            InputError: the picture is of another size or type than the camera's.
        """
        wanted = (self.camera.height, self.camera.width, 3)
        if image.shape != wanted or image.dtype != np.uint8:
            raise InputError(
                f"picture of camera {self.camera.name} is {image.shape} of {image.dtype}: give "
                f"{wanted} of uint8"
            )
        if self.maps is None:
            return image
        return cv2.remap(image, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def undistorted(camera: Camera) -> UndistortedCamera:
    """The pinhole camera that stands for one with distortion.

    It takes a tenth of a second; keep the result for all pictures of the camera.
    """
    lens = camera.distortion
    if lens is None:
        return UndistortedCamera(camera, None)
    straight = (
        camera.intrinsics if lens.undistorted_intrinsics is None else lens.undistorted_intrinsics
    )
    size = (camera.width, camera.height)
    args = (camera.intrinsics, lens.coefficients, np.eye(3), straight, size, cv2.CV_32FC1)
    make = (
        cv2.fisheye.initUndistortRectifyMap
        if lens.model == "fisheye"
        else cv2.initUndistortRectifyMap
    )
    maps = np.stack(make(*args))  # (2, H, W) float32, places in the lens's picture
    radii = _radii(straight, size)
    maps[:, radii > _largest_radius(lens, float(radii.max()))] = -_MARGIN_PX
    # The 16 bits of a fixed-point map would wrap around far outside of the picture.
    for places, side in zip(maps, size, strict=True):
        np.clip(places, -_MARGIN_PX, side + _MARGIN_PX, out=places)
    fixed = cv2.convertMaps(maps[0], maps[1], cv2.CV_16SC2)
    return UndistortedCamera(replace(camera, intrinsics=straight, distortion=None), fixed)


def _radii(intrinsics: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Tangents of the angles between the optical axis and a picture's pixels, (H, W)."""
    (fx, skew, cx), (_, fy, cy) = intrinsics[:2]
    y = (np.arange(size[1])[:, None] - cy) / fy  # (H, 1)
    return np.hypot((np.arange(size[0])[None] - cx - skew * y) / fx, y)


def _largest_radius(lens: Distortion, largest: float) -> float:
    """The tangent up to which a lens's polynomial grows.

    Behind its turning point it would show what is in sight a second time, at a wrong place.
    """
    radii = np.linspace(0, largest, _STEPS)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        falls = ~(np.diff(_bent(lens, radii)) > 0)  # NaN counts as one
    return float(radii[falls.argmax()]) if falls.any() else np.inf


def _bent(lens: Distortion, radii: FloatArray) -> FloatArray:
    """Where a lens moves points of given tangents, in focal lengths from the middle."""
    if lens.model == "fisheye":
        angles = np.arctan(radii)
        return angles * _polynomial(lens.coefficients, angles)
    k1, k2, _, _, k3, k4, k5, k6 = np.pad(lens.coefficients, (0, 10))[:8]
    top, bottom = _polynomial((k1, k2, k3), radii), _polynomial((k4, k5, k6), radii)
    return radii * top / bottom


def _polynomial(coefficients: FloatArray | tuple[float, ...], x: FloatArray) -> FloatArray:
    """1 + k1 x^2 + k2 x^4 + ..."""
    return np.polynomial.polynomial.polyval(x**2, [1.0, *coefficients])
