"""What a calibration says is drawn where it says."""

from __future__ import annotations

import numpy as np
import pytest
from hand_made_rig import intrinsics, looking, six_cameras

from streampetr_vit.errors import InputError
from streampetr_vit.structures import Camera, Distortion, Moment, Rig
from streampetr_vit.visualization.bird_eye_view import VEHICLE_OUTLINE_M
from streampetr_vit.visualization.colors import (
    BACKGROUND_COLOR,
    CLASS_COLORS,
    EGO_COLOR,
    MISSING_COLOR,
)
from streampetr_vit.visualization.rig_picture import draw_rig
from streampetr_vit.visualization.road_grid import (
    FORWARD_COLOR,
    RING_COLOR,
    draw_road,
)
from streampetr_vit.visualization.sheet import HEADER_PX

WIDTH = 480
SCALE = WIDTH / 1600
SIZE = 400  # of the views from above: the picture of one camera is lower


def road(camera: Camera) -> np.ndarray:
    """(900, 1600, 3) the road in a picture of full size."""
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    matrix = np.eye(4)
    matrix[:3, :3] = camera.intrinsics
    pose = camera.camera_to_vehicle.matrix()
    draw_road(image, matrix @ np.linalg.inv(pose), pose[:2, 2])
    return image


def pixel(camera: Camera, point: tuple[float, float, float]) -> np.ndarray:
    """(2,) where a point of the vehicle frame is seen."""
    seen = np.linalg.inv(camera.camera_to_vehicle.matrix()) @ [*point, 1.0]
    return (camera.intrinsics @ seen[:3])[:2] / seen[2]


def has(image: np.ndarray, place: np.ndarray, color: tuple[int, int, int], reach: int = 2) -> bool:
    """Whether a colour is within some pixels of a place."""
    u, v = np.round(place).astype(int)
    near = image[max(v - reach, 0) : v + reach + 1, max(u - reach, 0) : u + reach + 1]
    return bool(
        (np.abs(near.astype(int) - color).max(axis=-1) < 100).any()
    )  # a thin line is spread over two pixels


@pytest.mark.parametrize("yaw", [0, 55, 180, -110])
@pytest.mark.parametrize("pitch", [0.0, 8.0, -5.0])
def test_the_horizon_and_the_distances_are_where_geometry_says(yaw: float, pitch: float) -> None:
    camera = Camera("any", 1600, 900, intrinsics(900), looking(yaw, pitch))
    image = road(camera)
    horizon = 491 - 900 * np.tan(np.radians(pitch))
    red, green, blue = image.astype(int).transpose(2, 0, 1)
    pink = (red - green > 60) & (blue - green > 35)  # whatever lies below the thin line
    rows = np.flatnonzero(pink.any(axis=1))
    assert abs(rows.min() - horizon) < 3 and abs(rows.max() - horizon) < 3
    for radius in (10.0, 20.0):
        for degrees in (-15, 15):
            angle = np.radians(yaw + degrees)
            place = pixel(camera, (radius * np.cos(angle), radius * np.sin(angle), 0.0))
            assert has(image, place, RING_COLOR), (radius, degrees)
            assert not has(image, place + (0, 12), RING_COLOR)


def test_the_way_ahead_is_drawn_in_the_cameras_that_see_it() -> None:
    for name, seen in (("CAM_FRONT", True), ("CAM_BACK", False), ("CAM_FRONT_LEFT", False)):
        camera = six_cameras().camera(name)
        image = road(camera)
        found = np.abs(image.astype(int) - FORWARD_COLOR).max(axis=2) < 40
        assert found.any() == seen
        if seen:
            assert has(image, pixel(camera, (12.0, 0.0, 0.0)), FORWARD_COLOR)


def test_a_camera_without_a_picture_is_grey_and_one_with_it_shows_it() -> None:
    rig = six_cameras()
    picture = np.full((900, 1600, 3), (10, 200, 30), np.uint8)
    moment = Moment({"CAM_FRONT_LEFT": picture}, rig, np.eye(4), 0.0)
    empty, drawn = draw_rig(rig), draw_rig(rig, moment)
    assert empty.shape == drawn.shape and empty.dtype == np.uint8
    sky = np.s_[HEADER_PX + 60 : HEADER_PX + 90]  # of the first row of cameras
    assert (drawn[sky, 100:400] == (10, 200, 30)).all()
    assert (drawn[sky, 600:900] == empty[sky, 600:900]).all()
    assert (empty[sky, 100:400] == MISSING_COLOR).all()


def test_boxes_are_drawn_where_they_are() -> None:
    camera = Camera("front", 1600, 900, intrinsics(900), looking(0))
    rig = Rig([camera])
    empty = draw_rig(rig, boxes=np.empty((0, 7)))
    picture = draw_rig(rig, boxes=[[15.0, 1.0, 0.8, 4.0, 1.8, 1.6, 0.4]])
    changed = np.abs(picture.astype(int) - empty).max(axis=2) > 60
    expected = pixel(camera, (15.0, 1.0, 0.8)) * SCALE + (0, HEADER_PX)
    top = (picture.shape[0] - HEADER_PX) // 2  # the camera is in the middle of the height
    rows, columns = np.nonzero(changed[:, :WIDTH])
    assert abs(np.median(columns) - expected[0]) < 12
    assert abs(rows.mean() - top) < 60 and 20 < np.ptp(columns) < 120


def test_boxes_are_seen_from_above_where_they_are() -> None:
    rig = Rig([Camera("front", 1600, 900, intrinsics(900), looking(0))])
    # Another box, far away, so that all pictures have one scale.
    far = [-40.0, 0.0, 0.8, 4.0, 1.8, 1.6, 0.0]
    empty, picture = (
        draw_rig(rig, boxes=[*more, far])[HEADER_PX : HEADER_PX + SIZE, -SIZE:].astype(int)
        for more in ([], [[15.0, 6.0, 0.8, 4.0, 2.0, 1.6, np.pi / 2]])
    )
    rows, columns = np.nonzero(np.abs(picture - empty).max(axis=2) > 40)
    per_metre = SIZE / (2 * 47.0)  # 1.1 times 40 m, and 3 m
    ahead = ((SIZE - 1) / 2 - rows) / per_metre
    left = ((SIZE - 1) / 2 - columns) / per_metre
    assert (ahead.min(), ahead.max()) == pytest.approx((14.0, 16.0), abs=0.5)
    assert (left.min(), left.max()) == pytest.approx((4.0, 8.0), abs=0.5)


def test_cameras_are_seen_from_above_at_their_places() -> None:
    rig = Rig([Camera("a", 1600, 900, intrinsics(900), looking(90, 0, (2.0, 1.0, 1.5)))])
    picture = draw_rig(rig)
    above = picture[HEADER_PX : HEADER_PX + SIZE, -SIZE:]
    per_metre = SIZE / 10.0  # from 5 m on the left to 5 m on the right
    middle = (SIZE - 1) / 2
    place = np.array([middle - 1.0 * per_metre, middle - 2.0 * per_metre])
    color = next(iter(CLASS_COLORS.values()))
    nose_m = VEHICLE_OUTLINE_M[:, 1].max()
    outline = [np.array([middle, middle - side * nose_m * per_metre]) for side in (1, -1)]
    assert has(above, outline[0], EGO_COLOR, 4) and not has(above, outline[1], EGO_COLOR, 4)
    assert has(above, place, color, 1)
    # It looks to the left; what it sees is tinted, what is behind it is not.
    tint = above[round(place[1]), round(place[0]) - 70].astype(int) - BACKGROUND_COLOR
    assert tint.max() > 10
    assert (
        np.abs(above[round(place[1]) - 4, round(place[0]) + 25] - np.array(BACKGROUND_COLOR)).max()
        < 6
    )


def test_a_lens_that_bends_lines_must_be_straightened_first() -> None:
    camera = Camera("a", 1600, 900, intrinsics(), looking(0), Distortion([0.1, 0, 0, 0]))
    picture = np.zeros((900, 1600, 3), np.uint8)
    with pytest.raises(InputError, match="distortion"):
        draw_rig(Rig([camera]), Moment({"a": picture}, Rig([camera]), np.eye(4), 0.0))
