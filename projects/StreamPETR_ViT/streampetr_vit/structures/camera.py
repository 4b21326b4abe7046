"""One camera of a car: size and lens of its pictures, its place on the vehicle.

Frames: a camera has x right, y down and z forward, the vehicle x forward, y left and z up.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from streampetr_vit.errors import InputError
from streampetr_vit.structures.lens_checks import as_intrinsics, as_numbers, check_fits
from streampetr_vit.structures.pose import Pose
from streampetr_vit.structures.rig_file import check_keys, plain_pose, pose_of
from streampetr_vit.structures.sample_checks import FARTHEST_SENSOR_M
from streampetr_vit.texts import shown

LENS_MODELS = {"pinhole": (4, 5, 8, 12, 14), "fisheye": (4,)}  # -> how many coefficients
_LARGEST_SIDE = 20_000  # pixels
# A name is a folder's name and a part of files' names, on every system.
_NAME = re.compile(r"[\w+-](?:[\w .+-]{0,58}[\w+-])?")


@dataclass(frozen=True, eq=False)
class Distortion:
    """What a lens does to straight lines, with OpenCV's coefficients.

    Attributes:
        coefficients: k1 k2 p1 p2 [k3 [k4 k5 k6 ...]] of "pinhole" (4, 5, 8, 12 or 14 numbers), or
            k1 k2 k3 k4 of "fisheye".
        model: "pinhole" or "fisheye".
        undistorted_intrinsics: (3, 3) of the picture without distortion, in pixels; None takes
            those of the camera.
    """

    coefficients: np.ndarray
    model: str = "pinhole"
    undistorted_intrinsics: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            InputError: names the value and the fix.
        """
        if not isinstance(self.model, str) or self.model not in LENS_MODELS:
            raise InputError(
                f"distortion has the model {shown(self.model)}: give {' or '.join(LENS_MODELS)}"
            )
        counts = LENS_MODELS[self.model]
        form = f"{' or '.join(map(str, counts))} numbers for the model {self.model}"
        try:
            given = len(self.coefficients)
        except TypeError:
            given = 0
        if given not in counts:
            raise InputError(f"distortion is {shown(self.coefficients)}: give {form}")
        coefficients = as_numbers(self.coefficients, (given,), "distortion", form)
        object.__setattr__(self, "coefficients", coefficients)
        if self.undistorted_intrinsics is not None:
            matrix = as_intrinsics(
                self.undistorted_intrinsics, "undistorted_intrinsics of distortion"
            )
            object.__setattr__(self, "undistorted_intrinsics", matrix)

    @staticmethod
    def of(value: Any) -> Distortion:
        """From a list of coefficients, or a mapping of the attributes.

        Raises:
            InputError: names the value and the fix.
        """
        if not isinstance(value, Mapping):
            return Distortion(value)
        check_keys(value, ("coefficients",), ("model", "undistorted_intrinsics"), "distortion")
        return Distortion(**value)

    def plain(self) -> dict[str, Any]:
        """What `of` reads."""
        values: dict[str, Any] = {"model": self.model, "coefficients": self.coefficients.tolist()}
        if self.undistorted_intrinsics is not None:
            values["undistorted_intrinsics"] = self.undistorted_intrinsics.tolist()
        return values


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera. Arrays are copied and cannot be written to.

    Attributes:
        name: of the camera, its pictures and its folder.
        width, height: of its pictures, in pixels.
        intrinsics: (3, 3) float64, camera matrix in pixels of those pictures.
        camera_to_vehicle: its pose on the vehicle; a 4x4 matrix is turned into a `Pose`.
        distortion: of its pictures; None where they are straight already.
    """

    name: str
    width: int
    height: int
    intrinsics: np.ndarray
    camera_to_vehicle: Pose
    distortion: Distortion | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            InputError: names the camera, the value and the fix.
        """
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InputError(
                f"camera name {shown(self.name)}: give a text that can name a folder, of at most "
                "60 letters, digits, blanks and _ - + ."
            )
        for side in ("width", "height"):
            number = _pixels(getattr(self, side), f"{side} of camera {self.name}")
            object.__setattr__(self, side, number)
        what = f"intrinsics of camera {self.name}"
        object.__setattr__(self, "intrinsics", as_intrinsics(self.intrinsics, what))
        self._check_lens(what)
        what = f"camera_to_vehicle of camera {self.name}"
        object.__setattr__(self, "camera_to_vehicle", on_vehicle(self.camera_to_vehicle, what))

    def _check_lens(self, what: str) -> None:
        lens, size = self.distortion, (self.width, self.height)
        if lens is not None and not isinstance(lens, Distortion):
            raise InputError(
                f"distortion of camera {self.name} is {shown(lens)}: give a Distortion, or None"
            )
        check_fits(self.intrinsics, *size, what, lens is not None and lens.model == "fisheye")
        if lens is not None and abs(self.intrinsics[0, 1]) > 1e-6:
            raise InputError(
                f"{what} has the skew {self.intrinsics[0, 1]:.6g}, which OpenCV's lenses do not "
                "have: give 0 in its place"
            )
        if lens is not None and lens.undistorted_intrinsics is not None:
            check_fits(lens.undistorted_intrinsics, *size, f"undistorted_{what}", False)

    @staticmethod
    def of(name: Any, values: Any) -> Camera:
        """From a mapping of the attributes as plain values.

        Raises:
            InputError: names the camera, the value and the fix.
        """
        what = f"camera {name}" if isinstance(name, str) else f"camera {shown(name)}"
        needed = ("width", "height", "intrinsics", "camera_to_vehicle")
        found = dict(check_keys(values, needed, ("distortion",), what))
        found["camera_to_vehicle"] = pose_of(
            found["camera_to_vehicle"], f"camera_to_vehicle of {what}"
        )
        if found.get("distortion") is not None:
            try:
                found["distortion"] = Distortion.of(found["distortion"])
            except InputError as error:
                raise InputError(f"{what}: {error}") from error
        return Camera(name, **found)

    def plain(self) -> dict[str, Any]:
        """What `of` reads, without the name."""
        values: dict[str, Any] = {
            "width": self.width,
            "height": self.height,
            "intrinsics": self.intrinsics.tolist(),
            "camera_to_vehicle": plain_pose(self.camera_to_vehicle),
        }
        if self.distortion is not None:
            values["distortion"] = self.distortion.plain()
        return values


def on_vehicle(value: Any, what: str) -> Pose:
    """A pose of something on the vehicle, with arrays of its own that nobody can write to.

    Args:
        value: see `pose_of`.
        what: it is, for messages.

    Raises:
        InputError: it is no pose, or of something far from the vehicle.
    """
    given = pose_of(value, what)
    far = float(np.linalg.norm(given.translation_m))
    if far > FARTHEST_SENSOR_M:
        raise InputError(
            f"{what} has a translation of {far:.0f} m: give metres, and its place on the vehicle, "
            "without the vehicle's place on the map"
        )
    pose = Pose(np.array(given.translation_m, float), np.array(given.rotation_wxyz, float))
    for array in (pose.translation_m, pose.rotation_wxyz):
        array.setflags(write=False)
    return pose


def _pixels(value: Any, what: str) -> int:
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if not 1 <= number <= _LARGEST_SIDE:
        raise InputError(f"{what} is {shown(value)}: give a whole number, 1 to {_LARGEST_SIDE}")
    return number
