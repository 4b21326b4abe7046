"""A car's cameras as they are built in: sizes, lenses, places.

Frames: a camera has x right, y down and z forward, the vehicle x forward, y left and z up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampetr_vit.structures.pose import Pose


@dataclass(frozen=True, eq=False)
class Distortion:
    """What a lens does to straight lines, with OpenCV's coefficients.

    Attributes:
        coefficients: k1 k2 p1 p2 [k3 [k4 k5 k6 ...]] of "pinhole" (4, 5, 8, 12 or 14 numbers), or
            k1 k2 k3 k4 of "fisheye".
        model: "pinhole" or "fisheye".
        straight_intrinsics: (3, 3) of the picture after it was straightened, in pixels; None takes
            those of the camera.
    """

    coefficients: np.ndarray
    model: str = "pinhole"
    straight_intrinsics: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera.

    Attributes:
        name: of the camera, its pictures and its folder.
        width, height: of its pictures, in pixels.
        intrinsics: (3, 3) float64, camera matrix in pixels of those pictures.
        camera_to_vehicle: its pose on the vehicle.
        distortion: of its pictures; None where they are straight already.
    """

    name: str
    width: int
    height: int
    intrinsics: np.ndarray
    camera_to_vehicle: Pose
    distortion: Distortion | None = None


@dataclass(frozen=True, eq=False)
class Rig:
    """The cameras of a car.

    Attributes:
        cameras: at least one, each with its own name.
        reference_to_vehicle: pose on the vehicle of the frame that the network works in; None
            takes that of the network's training, which is stored with its checkpoint.
    """

    cameras: Sequence[Camera]
    reference_to_vehicle: Pose | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cameras, in their order."""
        return tuple(camera.name for camera in self.cameras)
