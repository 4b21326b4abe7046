"""The recording car: cameras and a lidar, their calibration and where they are.

Ego frame: x forward, y left, z up, origin on the ground under the rear axle. Camera frame: x
right, y down, z forward. Lidar frame: x right, y forward. Cameras have no pitch and no roll.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NATIVE_WIDTH = 1600.0
PRINCIPAL_POINT = (808.0, 490.0)
LIDAR_CHANNEL = "LIDAR_TOP"
LIDAR_TRANSLATION = (0.94, 0.0, 1.84)
LIDAR_YAW_RAD = -math.pi / 2

# x, y, z (m, ego), yaw (degrees), focal length (px at width 1600), exposure relative to the
# sample's time (ms). Source: the rig of nuScenes (arXiv 1903.11027), rounded.
_CAMERA_TABLE = {
    "CAM_FRONT": (1.70, 0.00, 1.51, 0.0, 1266.0, -35),
    "CAM_FRONT_RIGHT": (1.55, -0.49, 1.50, -55.0, 1260.0, -27),
    "CAM_FRONT_LEFT": (1.52, 0.49, 1.51, 55.0, 1272.0, -43),
    "CAM_BACK": (0.03, 0.00, 1.58, 180.0, 809.0, -10),
    "CAM_BACK_LEFT": (1.04, 0.48, 1.59, 110.0, 1257.0, -1),
    "CAM_BACK_RIGHT": (1.01, -0.48, 1.56, -110.0, 1260.0, -20),
}
CAMERA_NAMES = tuple(_CAMERA_TABLE)


def quaternion_from_yaw(yaw_rad: float) -> np.ndarray:
    """(w, x, y, z) of a rotation about +z."""
    return np.array([math.cos(yaw_rad / 2), 0.0, 0.0, math.sin(yaw_rad / 2)])


def _camera_quaternion(yaw_rad: float) -> np.ndarray:
    """Camera-to-ego rotation of a level camera that looks along `yaw_rad`."""
    cos, sin = math.cos(yaw_rad / 2), math.sin(yaw_rad / 2)
    # (cos, 0, 0, sin) * (0.5, -0.5, 0.5, -0.5)
    return 0.5 * np.array([cos + sin, -cos - sin, cos - sin, sin - cos])


@dataclass(frozen=True)
class CameraSpec:
    """A camera of an own rig, before a scene's calibration.

    Attributes:
        name: channel, and folder of its pictures.
        yaw_deg: viewing direction in the ego frame, counter-clockwise from straight ahead.
        fov_deg: horizontal field of view.
        size_px: (width, height) of its pictures; the principal point is their centre.
        position_m: (x, y, z) in the ego frame.
        delay_ms: exposure time minus sample time.
    """

    name: str
    yaw_deg: float
    fov_deg: float
    size_px: tuple[int, int]
    position_m: tuple[float, float, float] = (1.0, 0.0, 1.5)
    delay_ms: int = 0


@dataclass(frozen=True)
class Camera:
    """One calibrated camera on the car.

    Attributes:
        name: channel.
        translation_m: (3,) position in the ego frame.
        yaw_rad: viewing direction in the ego frame.
        focal_px: focal length, equal in x and y.
        principal_px: (cx, cy).
        size_px: (width, height).
        delay_us: exposure time minus sample time.
    """

    name: str
    translation_m: tuple[float, float, float]
    yaw_rad: float
    focal_px: float
    principal_px: tuple[float, float]
    size_px: tuple[int, int]
    delay_us: int

    @property
    def rotation_wxyz(self) -> np.ndarray:
        """(4,) camera-to-ego quaternion."""
        return _camera_quaternion(self.yaw_rad)

    @property
    def intrinsic(self) -> list[list[float]]:
        """3x3 camera matrix, pixel centres at integer coordinates."""
        cx, cy = self.principal_px
        return [[self.focal_px, 0.0, cx], [0.0, self.focal_px, cy], [0.0, 0.0, 1.0]]

    def placed(self, ego_xy_m: np.ndarray, ego_yaw_rad: float) -> PlacedCamera:
        """The camera in the world, for one ego pose (on the ground plane)."""
        cos, sin = math.cos(ego_yaw_rad), math.sin(ego_yaw_rad)
        x, y, z = self.translation_m
        position = (ego_xy_m[0] + cos * x - sin * y, ego_xy_m[1] + sin * x + cos * y, z)
        return PlacedCamera(self, np.array(position), ego_yaw_rad + self.yaw_rad)


@dataclass(frozen=True)
class PlacedCamera:
    """A camera at one moment.

    Attributes:
        camera: its calibration.
        position_m: (3,) global.
        yaw_rad: global viewing direction.
    """

    camera: Camera
    position_m: np.ndarray
    yaw_rad: float

    def axes(self) -> np.ndarray:
        """(3, 3) rows: the camera's right, down and forward directions in global coordinates."""
        cos, sin = math.cos(self.yaw_rad), math.sin(self.yaw_rad)
        return np.array([[sin, -cos, 0.0], [0.0, 0.0, -1.0], [cos, sin, 0.0]])

    def to_camera(self, points_m: np.ndarray) -> np.ndarray:
        """Global points (..., 3) in the camera frame, metres."""
        return (points_m - self.position_m) @ self.axes().T

    def to_pixels(self, points_camera_m: np.ndarray) -> np.ndarray:
        """Pinhole projection of camera-frame points (..., 3) to pixels (..., 2)."""
        scale = self.camera.focal_px / points_camera_m[..., 2:3]
        return points_camera_m[..., :2] * scale + np.array(self.camera.principal_px)


def make_rig(
    rng: np.random.Generator, width: int, height: int, specs: Sequence[CameraSpec] = ()
) -> tuple[Camera, ...]:
    """The cameras, with a small calibration change that differs from scene to scene.

    Args:
        rng: source of the change: yaw +-0.5 degrees, focal length +-1 %.
        width: picture width in pixels; focal length and principal point scale with it.
        height: picture height in pixels; rows are cut off evenly if it is not 9/16 of the width.
        specs: the cameras of another rig, which have their own picture sizes.

    Returns:
        Cameras in the order of `specs`; without any, the six of `CAMERA_NAMES`.
    """
    if not specs:
        return _nuscenes_rig(rng, width, height)
    cameras = []
    for spec in specs:
        w, h = spec.size_px
        yaw, stretch = _disturbance(rng, spec.yaw_deg)
        focal_px = round(w / 2 / math.tan(math.radians(spec.fov_deg) / 2) * stretch, 4)
        center = ((w - 1) / 2, (h - 1) / 2)  # pixel centres are at integer coordinates
        delay_us = round(1000 * spec.delay_ms)
        cameras.append(Camera(spec.name, spec.position_m, yaw, focal_px, center, (w, h), delay_us))
    return tuple(cameras)


def _nuscenes_rig(rng: np.random.Generator, width: int, height: int) -> tuple[Camera, ...]:
    scale = width / NATIVE_WIDTH
    center = (PRINCIPAL_POINT[0] * scale, PRINCIPAL_POINT[1] * height / 900.0)
    cameras = []
    for name, (x, y, z, yaw_deg, focal, delay_ms) in _CAMERA_TABLE.items():
        yaw, stretch = _disturbance(rng, yaw_deg)
        focal_px = round(focal * scale * stretch, 4)
        cameras.append(
            Camera(name, (x, y, z), yaw, focal_px, center, (width, height), 1000 * delay_ms)
        )
    return tuple(cameras)


def _disturbance(rng: np.random.Generator, yaw_deg: float) -> tuple[float, float]:
    """Yaw in radians after a small random turn, and a factor on the focal length."""
    # Rounded as the tables store it, so that pictures and tables agree exactly.
    yaw = round(math.radians(yaw_deg + rng.uniform(-0.5, 0.5)), 6)
    return yaw, 1 + rng.uniform(-0.01, 0.01)
