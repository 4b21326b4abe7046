"""A crop that takes the horizon away is told, once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tiny_car import make_camera, make_moment, make_predictor

from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.inference import Camera, Rig
from streampetr_vit.inference.checks.cut_horizon import cut_horizon

NETWORK = ImageAugmentation((320, 800), (1.0, 1.0))


def pitched(camera: Camera, degrees: float) -> Camera:
    """The camera, looking down by an angle."""
    pose = camera.camera_to_vehicle.matrix()
    pose[:3, :3] = pose[:3, :3] @ Rotation.from_euler("x", -degrees, degrees=True).as_matrix()
    return replace(camera, camera_to_vehicle=pose)


@pytest.mark.parametrize(
    ("size", "degrees", "cut"),
    [
        ((1600, 900), 0, False),
        ((1280, 960), 0, False),
        ((1000, 1000), 0, True),
        ((720, 1280), 0, True),
        ((720, 1280), -35, False),  # the horizon is at the bottom of the picture
        ((1600, 900), 15, True),
        ((1600, 900), 30, False),  # not even in the picture
        ((1000, 1000), 80, False),  # looks at the road alone
    ],
)
def test_the_row_of_the_horizon_decides(size: tuple[int, int], degrees: float, cut: bool) -> None:
    camera = pitched(make_camera("front", 30, size), degrees)
    text = cut_horizon(camera, NETWORK.fixed(size))
    assert (text is not None) == cut
    # Independently: a point 10 km ahead at the camera's height, through the camera and the crop.
    seen = camera.camera_to_vehicle.matrix()
    far = seen[:3, 3] + 1e4 * (seen[:3, 2] * (1, 1, 0)) / np.linalg.norm(seen[:2, 2])
    x, y, z, _ = np.linalg.inv(seen) @ [*far, 1]
    _, row, depth = NETWORK.fixed(size).matrix() @ camera.intrinsics @ (x, y, z)
    if cut:
        assert row / depth < 0
    elif degrees < 16:
        assert row / depth > 0


def test_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    predictor = make_predictor()
    for number in range(3):
        square = Rig([make_camera("front", 0, (64, 96)), make_camera("left", 90)])
        predictor.predict_batch([make_moment(0.5 * number, square)])
    (warning,) = [r.getMessage() for r in caplog.records if "horizon" in r.getMessage()]
    says = "camera front: of its pictures of 64x96 the network sees the lowest 33%, and the horizon"
    assert warning.startswith(says)
    assert "they are 2 times as wide as high" in warning and "\n" not in warning
