"""The pictures of one moment, as files or arrays, brought to the network's input size."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from streampetr_vit.data.image_io import read_image
from streampetr_vit.data.transforms import ImageAugmentation, ImageDraw
from streampetr_vit.errors import InputError
from streampetr_vit.inference.checks.cut_horizon import cut_horizon
from streampetr_vit.inference.undistortion import UndistortedCamera, undistorted
from streampetr_vit.structures import Camera
from streampetr_vit.structures.moment import Picture
from streampetr_vit.texts import shown

logger = logging.getLogger(__name__)

CHANNEL_ORDERS = ("rgb", "bgr")


class PictureMaker:
    """Makes planes of the network's input size from pictures, as the evaluation's mapper does.

    Args:
        image_aug: the network's; its fixed transform is used.
        channel_order: "rgb" or "bgr", of pictures that are arrays.

    Raises:
        InputError: another order.
    """

    def __init__(self, image_aug: ImageAugmentation, channel_order: str = "rgb") -> None:
        if channel_order not in CHANNEL_ORDERS:
            raise InputError(f'channel_order must be "rgb" or "bgr", not {shown(channel_order)}')
        self.image_aug, self._is_rgb = image_aug, channel_order == "rgb"
        # Maps of OpenCV, 8 bytes for each pixel: made once for each camera that is in use.
        self._undistorted: WeakKeyDictionary[Camera, UndistortedCamera] = WeakKeyDictionary()
        self._told: set[tuple[str, int, int]] = set()  # names and sizes of cameras

    def draw(self, camera: Camera) -> ImageDraw:
        """The resize and crop of a camera's pictures."""
        return self.image_aug.fixed((camera.width, camera.height))

    def undistorted(self, camera: Camera) -> UndistortedCamera:
        """The pinhole camera that the network sees in place of a camera, before the resize."""
        if camera.distortion is None:  # not kept: the value would hold its own key
            return undistorted(camera)
        known = self._undistorted.get(camera)
        if known is None:
            known = self._undistorted[camera] = undistorted(camera)
        return known

    def write(self, picture: Picture, camera: Camera, planes: np.ndarray) -> None:
        """Writes a picture, a file or an array that `check_array` accepts, to (3, H, W) uint8 RGB.

        Raises:
            BadImageError: a file that is no whole picture of the camera's size.
        """
        if isinstance(picture, np.ndarray):
            image, is_rgb = picture, self._is_rgb
        else:
            image = read_image(Path(picture), (camera.width, camera.height), "the rig")
            is_rgb = False  # OpenCV's order
        self._tell(camera)
        image = self.undistorted(camera).apply(image)
        self.draw(camera).write(image, planes if is_rgb else planes[::-1])

    def _tell(self, camera: Camera) -> None:
        """Warns once of what the crop takes away."""
        key = (camera.name, camera.width, camera.height)
        if key not in self._told:
            self._told.add(key)
            text = cut_horizon(self.undistorted(camera).camera, self.draw(camera))
            if text is not None:
                logger.warning("%s", text)


def check_array(picture: Any, camera: Camera) -> None:
    """Raises InputError unless a picture is what the rig says of its camera."""
    where, height, width = f"picture of camera {camera.name}", camera.height, camera.width
    shape = picture.shape
    if len(shape) == 3 and shape[0] == 3 and shape[2] != 3:
        raise InputError(
            f"{where} has the shape {shape}, channels first: give ({height}, {width}, 3), "
            "picture.transpose(1, 2, 0)"
        )
    if len(shape) != 3 or shape[2] != 3:
        raise InputError(
            f"{where} has the shape {shape}: give ({height}, {width}, 3), three channels of colour"
        )
    if picture.dtype != np.uint8:
        raise InputError(f"{where} is {picture.dtype}: give uint8, 0 to 255")
    if shape[:2] != (height, width):
        raise InputError(
            f"{where} is {shape[1]}x{shape[0]} pixels, the rig says {width}x{height}: give "
            "pictures of that size, or a rig with the size and intrinsics of these"
        )
