"""A moment of a drive -> a sample of the detector, after every check that needs no arithmetic.

Shape letters: N cameras with a picture, H W image height and width in pixels.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from streampetr_vit.data.frame_geometry import FrameGeometry
from streampetr_vit.data.image_io import BadImageError
from streampetr_vit.errors import InputError
from streampetr_vit.export.runner import WITHOUT_A_CAMERA
from streampetr_vit.inference.pictures import PictureMaker, check_array
from streampetr_vit.structures import Camera, Moment, Pose, Rig, Sample
from streampetr_vit.structures.moment import Picture
from streampetr_vit.structures.rigid import as_pose
from streampetr_vit.structures.sample_checks import LATEST_S
from streampetr_vit.texts import name_list, nearest, shown

logger = logging.getLogger(__name__)

_COARSEST_S = 1e-3  # of a time stamp's last digit
_FARTHEST_M = 50.0  # that a car drives between the pictures of a moment: 100 m/s for half a second


class NoPictureError(InputError):
    """Every picture of a moment is broken, and broken pictures are to be left out.

    Attributes:
        bad_pictures: a text for each of them.
    """

    def __init__(self, bad_pictures: Sequence[str], where: str = "") -> None:
        self.bad_pictures = bad_pictures
        super().__init__(
            f"{where}no picture of this moment can be used ({bad_pictures[0]}): restore the files, "
            "or leave the moment out; the memory bridges the gap"
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the detector needs of one moment; made by any thread.

    Attributes:
        sample: of the cameras that have a picture.
        cameras: their names.
        reference_to_vehicle, vehicle_to_world: poses of the network's frame and of the vehicle.
        bad_pictures: one text for each picture that was left out because it is broken.
    """

    sample: Sample
    cameras: Sequence[str]
    reference_to_vehicle: Pose
    vehicle_to_world: Pose
    bad_pictures: Sequence[str] = ()

    @property
    def timestamp_s(self) -> float:
        """Seconds."""
        return float(self.sample.timestamp_s)


@dataclass(eq=False)
class Preparation:
    """Prepares moments for one detector.

    Attributes:
        pictures: brings pictures to the network's input size.
        reference_to_vehicle: of rigs that do not state their own.
        allow_missing_cameras: leave out cameras that a moment does not name; otherwise only those
            whose picture is None.
        on_bad_image: "raise", or "count", which leaves the camera out of the moment.
        cameras: that a moment must have, as exported graphs do; None for any number.
    """

    pictures: PictureMaker
    reference_to_vehicle: Pose
    allow_missing_cameras: bool = False
    on_bad_image: str = "raise"
    cameras: int | None = None

    def __post_init__(self) -> None:
        if self.on_bad_image not in ("raise", "count"):
            raise InputError(f'on_bad_image must be "raise" or "count", not {self.on_bad_image!r}')

    def __call__(self, moment: Moment) -> Prepared:
        """Checks a moment, reads its pictures, and makes a sample of it.

        Raises:
            InputError: something in it cannot be; names the camera, the value and the fix.
            BadImageError: a file is no whole picture, and `on_bad_image` is "raise".
        """
        if not isinstance(moment, Moment):
            raise InputError(f"the moment is a {type(moment).__name__}: give a Moment")
        where = f"{moment.scene} {moment.name}: ".lstrip() if moment.name else ""
        try:
            return self._prepare(moment)
        except BadImageError as error:
            raise BadImageError(
                f"{where}{error}. Restore or correct it; or leave broken pictures out with "
                'on_bad_image="count" (--on-bad-image count)'
            ) from error
        except NoPictureError as error:
            raise NoPictureError(error.bad_pictures, where) from error
        except InputError as error:
            raise InputError(f"{where}{error}") from error

    def _prepare(self, moment: Moment) -> Prepared:
        if not isinstance(moment.rig, Rig):
            raise InputError(
                f"rig is a {type(moment.rig).__name__}: give a Rig, such as Rig.load(FILE)"
            )
        time_s = check_time(moment.timestamp_s)
        vehicle_to_world = as_pose(moment.vehicle_to_world, "vehicle_to_world")
        reference = moment.rig.reference_to_vehicle or self.reference_to_vehicle
        moved = _moved(moment, vehicle_to_world)
        images, cameras, bad = self._images(self._with_pictures(moment))
        self._check_number(cameras, moment.rig)
        to_vehicle = [moved.get(c.name, np.eye(4)) @ c.camera_to_vehicle.matrix() for c in cameras]
        geometry = FrameGeometry.of(
            reference,
            vehicle_to_world,
            reference.inverse_matrix() @ np.stack(to_vehicle),
            np.stack([self.pictures.undistorted(camera).camera.intrinsics for camera in cameras]),
        ).with_image_draws([self.pictures.draw(camera) for camera in cameras])
        sample = Sample(
            images=torch.from_numpy(images),
            **geometry.matrices(),
            timestamp_s=torch.tensor(time_s, dtype=torch.float64),
            continues_stream=torch.tensor(False),
            scene_name=moment.scene,
            sample_token=moment.name,
        )
        names = tuple(camera.name for camera in cameras)
        return Prepared(sample, names, reference, vehicle_to_world, bad)

    def _check_number(self, cameras: Sequence[Camera], rig: Rig) -> None:
        if self.cameras is None or len(cameras) == self.cameras:
            return
        without = [name for name in rig.names if name not in {camera.name for camera in cameras}]
        which = f" (none of {name_list(without)})" if without else ""
        raise InputError(
            f"there are pictures of {len(cameras)} cameras{which}, and the exported graphs need "
            f"{self.cameras}, which is fixed: give a picture of each; {WITHOUT_A_CAMERA}"
        )

    def _with_pictures(self, moment: Moment) -> list[tuple[Camera, Picture]]:
        """The cameras that have a picture, in the order of the rig."""
        pictures, names = moment.pictures, moment.rig.names
        if not isinstance(pictures, Mapping):
            raise InputError(f"pictures are a {type(pictures).__name__}: give {{camera: picture}}")
        for name in pictures:
            if name not in names:
                raise InputError(f"pictures name the camera {shown(name)}{_instead(name, names)}")
        missing = [name for name in names if name not in pictures]
        if missing and not self.allow_missing_cameras:
            raise InputError(
                f"there is no picture of camera {name_list(missing)}: give one, or None for a "
                "camera that has none in this moment; or set allow_missing_cameras=True "
                "(--allow-missing-cameras)"
            )
        found = [(c, pictures[c.name]) for c in moment.rig.cameras if c.name in pictures]
        return [
            (camera, _checked(picture, camera)) for camera, picture in found if picture is not None
        ]

    def _images(
        self, given: Sequence[tuple[Camera, Picture]]
    ) -> tuple[np.ndarray, list[Camera], list[str]]:
        """(N, 3, H, W) uint8 RGB, the N cameras, and texts about pictures that are left out."""
        images = np.empty((len(given), 3, *self.pictures.image_aug.final_size), np.uint8)
        cameras: list[Camera] = []
        bad = []
        for camera, picture in given:
            try:
                self.pictures.write(picture, camera, images[len(cameras)])
            except BadImageError as error:
                if self.on_bad_image == "raise":
                    raise BadImageError(f"camera {camera.name}: {error}") from error
                bad.append(f"camera {camera.name}: {error}")
                logger.warning("left out %s", bad[-1])
                continue
            cameras.append(camera)
        if bad and not cameras:
            raise NoPictureError(bad)
        if not cameras:
            raise InputError(
                "no camera has a picture in this moment: leave the moment out; the memory bridges "
                "the gap"
            )
        return images[: len(cameras)], cameras, bad


def check_time(value: Any) -> float:
    """The seconds that a time stamp says.

    Raises:
        InputError: it is no finite number of seconds.
    """
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"timestamp_s is {shown(value)}: give seconds, a finite number")
    if abs(seconds) >= LATEST_S:
        raise InputError(
            f"timestamp_s is {seconds:.17g}, too many for seconds: divide milliseconds by 1e3, "
            "microseconds by 1e6, nanoseconds by 1e9"
        )
    step_s = float(np.spacing(np.float32(seconds)))
    if step_s > _COARSEST_S and str(getattr(value, "dtype", "")).endswith("float32"):
        raise InputError(
            f"timestamp_s is {seconds:.17g} as float32, which knows times so large to {step_s:g} "
            "s: give float64"
        )
    return seconds


def _moved(moment: Moment, vehicle_to_world: Pose) -> dict[str, np.ndarray]:
    """Camera -> (4, 4): vehicle at the moment of its picture -> vehicle at the given moment."""
    to_vehicle = vehicle_to_world.inverse_matrix()
    poses, moved = moment.camera_vehicle_to_world, {}
    if not isinstance(poses, Mapping):
        raise InputError(f"camera_vehicle_to_world is {shown(poses)}: give {{camera: pose}}")
    for name, pose in poses.items():
        if name not in moment.rig.names:
            instead = _instead(name, moment.rig.names)
            raise InputError(f"camera_vehicle_to_world names the camera {shown(name)}{instead}")
        what = f"camera_vehicle_to_world of camera {name}"
        moved[name] = to_vehicle @ as_pose(pose, what).matrix()
        way = float(np.linalg.norm(moved[name][:3, 3]))
        if way > _FARTHEST_M:
            raise InputError(
                f"{what} is {way:.1f} m from vehicle_to_world: give the pose of the vehicle, not "
                "of the camera, when the picture was taken, in the same frame of the world"
            )
    return moved


def _checked(picture: Any, camera: Camera) -> Picture:
    """The picture, after what can be told of it without reading a file."""
    if isinstance(picture, np.ndarray):
        check_array(picture, camera)
    elif not isinstance(picture, (str, os.PathLike)):
        raise InputError(
            f"picture of camera {camera.name} is a {type(picture).__name__}: give a numpy array "
            f"({camera.height}, {camera.width}, 3) of uint8, or a path"
        )
    return picture


def _instead(name: object, names: Sequence[str]) -> str:
    alike = nearest(str(name), names)
    hint = f" (nearest: {name_list(alike)})" if alike else ""
    return f", which the rig does not have{hint}: its cameras are {name_list(names)}"
