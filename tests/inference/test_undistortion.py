"""Straight pictures show things where the pinhole projection says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hand_made_rig import looking

from streampetr_vit.errors import InputError
from streampetr_vit.inference.undistortion import undistorted
from streampetr_vit.structures import Camera, Distortion

W, H = 640, 400
K = np.array([[380.0, 0, 325], [0, 390.0, 195], [0, 0, 1]])
OTHER = np.array([[300.0, 0, 315], [0, 310.0, 205], [0, 0, 1]])
LENSES = {
    "four": ("pinhole", [-0.25, 0.06, 1e-3, -8e-4]),
    "five": ("pinhole", [-0.3, 0.1, 5e-4, 3e-4, -0.01]),
    "rational": ("pinhole", [0.2, -0.1, 0, 0, 0.02, 0.5, -0.05, 0.01]),
    "thin prism": ("pinhole", [-0.1, 0.01, 0, 0, 0, 0, 0, 0, 1e-3, 0, 2e-3, 0]),
    "tilted": ("pinhole", [-0.1, 0.01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.01, -0.02]),
    "fisheye": ("fisheye", [0.03, -0.01, 0.004, -0.001]),
}


def camera_of(model: str, coefficients: list[float], straight: np.ndarray | None) -> Camera:
    return Camera("front", W, H, K, looking(0), Distortion(coefficients, model, straight))


def seen(points: np.ndarray, model: str, coefficients: list[float]) -> np.ndarray:
    """Pixels (n, 2) of points (n, 3) in a picture of the lens."""
    project = cv2.fisheye.projectPoints if model == "fisheye" else cv2.projectPoints
    lens = np.array(coefficients)
    return project(points[:, None], np.zeros(3), np.zeros(3), K, lens)[0].reshape(-1, 2)


@pytest.mark.parametrize("straight", [None, OTHER], ids=["same", "other intrinsics"])
@pytest.mark.parametrize("lens", LENSES)
def test_points_are_where_the_pinhole_projection_says(
    lens: str, straight: np.ndarray | None
) -> None:
    model, coefficients = LENSES[lens]
    found = undistorted(camera_of(model, coefficients, straight))
    matrix = K if straight is None else straight
    np.testing.assert_array_equal(found.camera.intrinsics, matrix)
    assert found.camera.distortion is None and found.camera.name == "front"
    count = 0
    for x in np.linspace(-0.6, 0.6, 5):
        for y in np.linspace(-0.35, 0.35, 4):
            point = np.array([[x, y, 1.0]])
            image = np.zeros((H, W, 3), np.uint8)
            center = seen(point, model, coefficients)[0]
            fixed = tuple(int(round(value * 256)) for value in center)
            cv2.circle(image, fixed, 5 * 256, (255, 255, 255), -1, cv2.LINE_AA, 8)
            light = found.apply(image)[:, :, 1].astype(float)
            rows, columns = np.mgrid[:H, :W]
            middle = np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()
            expected = (matrix @ point[0])[:2]
            if (expected > 12).all() and (expected < [W - 12, H - 12]).all():
                assert np.abs(middle - expected).max() < 0.5
                count += 1
    assert count >= 12


def test_no_distortion_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    straight = Camera("front", W, H, K, looking(0))
    found = undistorted(straight)
    assert found.apply(image) is image and found.camera is straight
    same = undistorted(camera_of("pinhole", [0, 0, 0, 0, 0], None))
    np.testing.assert_array_equal(same.apply(image), image)


def test_nothing_is_shown_twice_beyond_the_turning_point_of_a_lens() -> None:
    # r (1 - 0.5 r^2) falls from r = 0.82 on; what lies farther out would be shown once more.
    wide = np.array([[200.0, 0, 320], [0, 200.0, 200], [0, 0, 1]])
    found = undistorted(camera_of("pinhole", [-0.5, 0, 0, 0], wide))
    light = found.apply(np.full((H, W, 3), 255, np.uint8))[:, :, 0]
    rows, columns = np.mgrid[:H, :W]
    radii = np.hypot(columns - 320, rows - 200) / 200
    assert (light[radii > 0.83] == 0).all() and (light[200, radii[200] < 0.8] == 255).all()


def test_far_places_do_not_wrap_around() -> None:
    wide = np.array([[100.0, 0, 320], [0, 100.0, 200], [0, 0, 1]])
    found = undistorted(camera_of("pinhole", [0.5, 2.0, 0, 0], wide))  # up to 300,000 px away
    light = found.apply(np.full((H, W, 3), 255, np.uint8))[:, :, 0]
    assert (light[:, :200] == 0).all() and light[200, 320] == 255


def test_a_picture_of_another_size_is_refused() -> None:
    found = undistorted(camera_of("pinhole", [0, 0, 0, 0], None))
    with pytest.raises(InputError, match=r"of camera front is \(640, 400, 3\) of uint8: give"):
        found.apply(np.zeros((W, H, 3), np.uint8))
