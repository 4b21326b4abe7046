"""A spot on the road is in the network's picture where OpenCV puts it by rig and poses."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tiny_car import REFERENCE, make_camera

from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.inference import Camera, Distortion, Moment, Pose, Rig
from streampetr_vit.inference.pictures import PictureMaker
from streampetr_vit.inference.preparation import Preparation

SIZES = {"front": (800, 450), "left": (640, 480)}
HEIGHT, WIDTH = 320, 800
FORWARD = {"front": (1.0, 0.0), "left": (0.0, 1.0)}
LENSES: dict[str, Distortion | None] = {
    "straight": None,
    "pinhole": Distortion([-0.2, 0.05, 0.001, -0.002, 0.01]),
    "fisheye": Distortion([0.05, -0.01, 0.002, -0.001], "fisheye"),
    "other intrinsics": Distortion(
        [-0.2, 0.05, 0.001, -0.002], "pinhole", [[500, 0, 395], [0, 480, 230], [0, 0, 1]]
    ),
}


def pose(place: Any, angles: Any) -> Pose:
    x, y, z, w = Rotation.from_euler("xyz", angles).as_quat()
    return Pose(np.array(place, float), np.array([w, x, y, z]))


NOW = pose((512345.1, 5.4e6, 120), (0.03, -0.05, 1.1))
LATER = pose((512345.6, 5.4e6 + 0.9, 120), (0.02, -0.04, 1.13))
OWN = pose((1.2, 0.3, 1.5), (0.02, -0.03, 0.4))


def in_picture(point: np.ndarray, camera_to_vehicle: np.ndarray, camera: Camera) -> np.ndarray:
    """(2,) pixels of a point of the vehicle's frame, by OpenCV."""
    seen = (np.linalg.inv(camera_to_vehicle) @ [*point, 1])[:3]
    assert seen[2] > 1
    lens, zeros = camera.distortion, np.zeros(3)
    if lens is not None and lens.model == "fisheye":
        seen = seen[None, None]
        args = (seen, zeros, zeros, camera.intrinsics.copy(), lens.coefficients.copy())
        return cv2.fisheye.projectPoints(*args)[0].ravel()
    bent = None if lens is None else lens.coefficients.copy()
    return cv2.projectPoints(seen[None], zeros, zeros, camera.intrinsics.copy(), bent)[0].ravel()


def spot(size: tuple[int, int], place: np.ndarray) -> np.ndarray:
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    centre = tuple(int(round(value * 16)) for value in place)
    cv2.circle(picture, centre, 4 * 16, (255, 255, 255), -1, shift=4)
    return picture


@pytest.mark.parametrize("own", [None, OWN], ids=["reference of the training", "of the rig"])
@pytest.mark.parametrize("moved", [False, True], ids=["at once", "one after the other"])
@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_a_spot_on_the_road(lens: Distortion | None, moved: bool, own: Pose | None) -> None:
    cameras = []
    for name, angle in (("front", 3), ("left", 88)):
        camera = make_camera(name, angle, SIZES[name])
        bent = lens if name == "front" else None
        values = (name, *SIZES[name], camera.intrinsics, camera.camera_to_vehicle, bent)
        cameras.append(Camera(*values))
    theirs = {"front": LATER} if moved else {}
    pictures, points = {}, {}
    for camera in cameras:
        points[camera.name] = np.array([*(np.array(FORWARD[camera.name]) * 9 + (0.5, 1)), 0])
        to_now = np.linalg.inv(NOW.matrix()) @ theirs.get(camera.name, NOW).matrix()
        place = in_picture(points[camera.name], to_now @ camera.camera_to_vehicle.matrix(), camera)
        pictures[camera.name] = spot(SIZES[camera.name], place)
    maker = PictureMaker(ImageAugmentation((HEIGHT, WIDTH), (1.0, 1.0)))
    moment = Moment(pictures, Rig(cameras, own), NOW.matrix(), 1.5e9, theirs)
    sample = Preparation(maker, REFERENCE)(moment).sample
    reference = (own or REFERENCE).matrix()
    for row, camera in enumerate(cameras):
        seen = np.linalg.inv(reference) @ [*points[camera.name], 1]
        u, v, depth, _ = sample.lidar_to_image[row].double().numpy() @ seen
        light = sample.images[row].numpy().astype(float).sum(axis=0)
        ys, xs = np.mgrid[:HEIGHT, :WIDTH]
        middle = np.array([(light * xs).sum(), (light * ys).sum()]) / light.sum()
        assert 20 < middle[0] < WIDTH - 20 and 20 < middle[1] < HEIGHT - 20
        np.testing.assert_allclose((u / depth, v / depth), middle, atol=1)
