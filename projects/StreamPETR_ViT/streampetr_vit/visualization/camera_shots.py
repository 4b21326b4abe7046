"""What each camera of a moment saw, and from where: for pictures and recordings.

Frames: a camera has x right, y down and z forward, the vehicle x forward, y left and z up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from streampetr_vit.data.image_io import read_rgb
from streampetr_vit.errors import InputError
from streampetr_vit.structures import Camera, Moment, invert_rigid
from streampetr_vit.structures.rigid import as_pose
from streampetr_vit.texts import name_list, nearest, shown
from streampetr_vit.visualization.drawing import FloatArray, Image


@dataclass(frozen=True, eq=False)
class CameraShot:
    """One camera in one moment.

    Attributes:
        camera: whose lens is straight.
        image: (height, width, 3) uint8 RGB, or None where it has no picture.
        camera_to_vehicle: (4, 4) float64, its pose in the frame of the vehicle as that stands in
            the moment. It differs from the rig's where the picture was taken at another time.
    """

    camera: Camera
    image: Image | None
    camera_to_vehicle: FloatArray

    def vehicle_to_image(self) -> FloatArray:
        """(4, 4) float64; its third row gives the depth in metres."""
        intrinsics = np.eye(4)
        intrinsics[:3, :3] = self.camera.intrinsics
        return intrinsics @ _inverse(self.camera_to_vehicle)


def camera_shots(moment: Moment) -> list[CameraShot]:
    """The shots of all cameras, in the order of the rig.

    Args:
        moment: with straight pictures: where a rig's cameras have a distortion, its pictures and
            its rig are to be replaced by the straight ones first. Files are read.

    Raises:
        InputError: a picture of another size or kind than the rig says, a camera with distortion,
            or names that the rig does not have.
        BadImageError: a file that is no such picture.
    """
    _check_names(moment, "pictures", moment.pictures)
    _check_names(moment, "camera_vehicle_to_world", moment.camera_vehicle_to_world)
    to_vehicle = _inverse(as_pose(moment.vehicle_to_world, "vehicle_to_world").matrix())
    shots = []
    for camera in moment.rig.cameras:
        pose = camera.camera_to_vehicle.matrix()
        theirs = moment.camera_vehicle_to_world.get(camera.name)
        if theirs is not None:
            what = f"camera_vehicle_to_world of camera {shown(camera.name)}"
            pose = to_vehicle @ as_pose(theirs, what).matrix() @ pose
        shots.append(CameraShot(camera, _image(moment, camera), pose))
    return shots


def _image(moment: Moment, camera: Camera) -> Image | None:
    if camera.distortion is not None:
        raise InputError(
            f"camera {shown(camera.name)} has a distortion: boxes are drawn on straight pictures; "
            "give the moment with those, and a rig with their intrinsics and without distortion"
        )
    picture = moment.pictures.get(camera.name)
    if isinstance(picture, (str, Path)):
        return read_rgb(Path(picture), (camera.width, camera.height), "the rig")
    wanted = (camera.height, camera.width, 3)
    if picture is not None and (picture.shape != wanted or picture.dtype != np.uint8):
        raise InputError(
            f"picture of camera {shown(camera.name)} is {picture.dtype} of the shape "
            f"{picture.shape}, the rig says uint8 of {wanted}: correct the one that is wrong"
        )
    return picture


def _check_names(moment: Moment, what: str, given: Mapping[str, object]) -> None:
    for name in given:
        if name not in moment.rig.names:
            known = nearest(str(name), moment.rig.names) or moment.rig.names
            raise InputError(
                f"{what} has the camera {shown(name)}, which the rig does not have: it has "
                f"{name_list(known)}"
            )


def _inverse(matrix: FloatArray) -> FloatArray:
    return invert_rigid(torch.from_numpy(matrix)).numpy()
