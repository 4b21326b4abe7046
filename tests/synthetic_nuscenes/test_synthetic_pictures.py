"""What is painted: geometry against the devkit's projection, visibility, colours."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import BoxVisibility, view_points
from pyquaternion import Quaternion

from synthetic_nuscenes import PRESETS, annotate
from synthetic_nuscenes.categories import KIND_NAMES
from synthetic_nuscenes.faces import FACE_NORMALS, FRONT, LEFT, REAR
from synthetic_nuscenes.looks import SHADES, look_bank, look_index
from synthetic_nuscenes.painter import ID_SCALE, Objects, Painter
from synthetic_nuscenes.rig import PlacedCamera, make_rig
from synthetic_nuscenes.scene import Scene, build_scene
from synthetic_nuscenes.scenery import FOG_END, fog_share, make_scenery

WIDTH, HEIGHT = 400, 225


@pytest.fixture(scope="module")
def nusc(tiny_nuscenes: Path) -> NuScenes:
    return NuScenes("v1.0-mini", str(tiny_nuscenes), verbose=False)


@pytest.fixture(scope="module")
def scene(nusc: NuScenes) -> Scene:
    return build_scene(PRESETS["tiny"], nusc.scene[0]["name"], 0)


def _placed(scene: Scene, frame: int, camera: int) -> PlacedCamera:
    calibrated = scene.cameras[camera]
    time = float(scene.times_s[frame]) + calibrated.delay_us / 1e6
    return calibrated.placed(*scene.world.ego_pose(time))


def _extent(mask: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom pixel of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]])


def _whole_objects(nusc: NuScenes, scene: Scene, camera: int) -> Iterator[tuple[int, int, Box]]:
    """Frame, actor and devkit box (camera frame) of objects wholly inside a picture."""
    for number, track in enumerate(scene.tracks):
        if KIND_NAMES[scene.world.actors.kind[track.actor]] == "bicycle_rack":
            continue
        for frame in range(track.first, track.last + 1):
            data = scene.token("sample_data", scene.cameras[camera].name, frame)
            _, boxes, _ = nusc.get_sample_data(
                data, BoxVisibility.ALL, [scene.token("annotation", number, frame)]
            )
            yield from ((frame, track.actor, box) for box in boxes)


def _devkit_extent(box: Box, camera_intrinsic: list[list[float]]) -> np.ndarray:
    corners = view_points(box.corners(), np.array(camera_intrinsic), normalize=True)[:2]
    return np.concatenate((corners.min(axis=1), corners.max(axis=1)))


@pytest.mark.parametrize("camera", range(6))
def test_painted_objects_lie_where_the_devkit_projects_them(
    nusc: NuScenes, scene: Scene, camera: int
) -> None:
    errors = []
    for frame, actor, box in _whole_objects(nusc, scene, camera):
        alone = scene.objects(frame).take([actor])
        image = Painter(None).paint(_placed(scene, frame, camera), alone).image
        expected = _devkit_extent(box, scene.cameras[camera].intrinsic)
        errors.append(np.abs(_extent(image.any(axis=2)) - expected).max())
    assert len(errors) >= 3
    assert max(errors) <= 1.3
    assert np.mean(errors) <= 0.8


def test_one_pose_for_all_cameras_would_be_noticed(nusc: NuScenes, scene: Scene) -> None:
    """With the lidar's ego pose in the place of the camera's own, boxes are off by pixels."""
    camera = 1
    errors = []
    for frame, actor, box in _whole_objects(nusc, scene, camera):
        ego_pose = scene.world.ego_pose(float(scene.times_s[frame]))
        wrong = scene.cameras[camera].placed(*ego_pose)
        image = Painter(None).paint(wrong, scene.objects(frame).take([actor])).image
        if image.any():
            expected = _devkit_extent(box, scene.cameras[camera].intrinsic)
            errors.append(np.abs(_extent(image.any(axis=2)) - expected).max())
    assert max(errors) > 2.0


def test_files_hold_what_is_painted(nusc: NuScenes, scene: Scene) -> None:
    rng = np.random.default_rng([scene.config.seed, scene.index, 1 << 20])
    painter = Painter(make_scenery(rng, scene.world, scene.config.range_m))
    for camera in (0, 3):
        token = scene.token("sample_data", scene.cameras[camera].name, 2)
        stored = cv2.imread(nusc.get_sample_data_path(token))
        painted = painter.paint(_placed(scene, 2, camera), scene.objects(2)).image
        difference = np.abs(stored.astype(int) - painted)
        assert difference.mean() < 5.0  # JPEG
        assert painted.std() > 20.0


def _ray_cast(placed: PlacedCamera, boxes: np.ndarray) -> np.ndarray:
    """(h, w) index of the nearest box per pixel of the id buffer, -1 for none."""
    camera = placed.camera
    width, height = round(WIDTH * ID_SCALE), round(HEIGHT * ID_SCALE)
    u, v = np.meshgrid(
        (np.arange(width) + 0.5) / ID_SCALE - 0.5, (np.arange(height) + 0.5) / ID_SCALE - 0.5
    )
    (cx, cy), f = camera.principal_px, camera.focal_px
    rays = np.stack(((u - cx) / f, (v - cy) / f, np.ones_like(u)), axis=-1) @ placed.axes()
    nearest, index = np.full(u.shape, np.inf), np.full(u.shape, -1)
    for k, box in enumerate(boxes):
        to_box = Quaternion(axis=[0, 0, 1], radians=-box[6]).rotation_matrix
        eye, direction = to_box @ (placed.position_m - box[:3]), rays @ to_box.T
        with np.errstate(divide="ignore"):
            low, high = (-box[3:6] / 2 - eye) / direction, (box[3:6] / 2 - eye) / direction
        enter, leave = np.minimum(low, high).max(-1), np.maximum(low, high).min(-1)
        hit = (enter < leave) & (leave > 0) & (enter < nearest)
        nearest[hit], index[hit] = enter[hit], k
    return index


@pytest.mark.parametrize("camera", [0, 2, 3, 5])
def test_visible_pixels_equal_ray_casting(scene: Scene, camera: int) -> None:
    """Occlusion, near objects that reach behind the camera, and areas: all against ray casting."""
    actors = scene.world.actors
    solid = (actors.kind != KIND_NAMES.index("bicycle_rack")) & (actors.rack < 0)
    objects = scene.objects(3).take(np.flatnonzero(solid))
    placed = _placed(scene, 3, camera)
    picture = Painter(None).paint(placed, objects)
    index = _ray_cast(placed, objects.boxes)
    visible = np.bincount(index[index >= 0], minlength=len(objects))
    # OpenCV fills the border pixels too: allow a seam around each object.
    slack = 4.0 * np.sqrt(np.maximum(picture.own_px, 1.0)) + 4.0
    assert (np.abs(picture.visible_px - visible) <= slack).all()
    for k in np.argsort(-picture.own_px)[:5]:
        alone = (_ray_cast(placed, objects.boxes[[k]]) == 0).sum()
        assert abs(picture.own_px[k] - alone) <= slack[k]
    assert (visible > 50).sum() >= 2


def test_visibility_levels() -> None:
    levels = {0.0: "1", 0.39: "1", 0.41: "2", 0.61: "3", 0.79: "3", 0.81: "4", 1.2: "4"}
    own_px = np.full(len(levels), 50.0)
    found = annotate.visibility_tokens(np.array(list(levels)) * own_px, own_px)
    assert found.tolist() == list(levels.values())
    assert annotate.visibility_tokens(np.zeros(2), np.zeros(2)).tolist() == ["1", "1"]


def test_fog_hides_what_is_not_annotated() -> None:
    distance = np.array([0.0, 10.0, 19.0, 25.0, 25.0 * FOG_END, 40.0])
    share = fog_share(distance, 25.0)
    assert (np.diff(share) >= 0).all()
    assert share[0] == 0.0 and share[2] < 0.2 and share[3] > 0.6
    np.testing.assert_allclose(share[4:], 1.0)


def _one_object(kind: str, heading_rad: float, distance_m: float) -> Objects:
    """A typical object straight before CAM_FRONT; heading 0 looks away from the camera."""
    sizes = {"car": (4.6, 1.9, 1.7), "pedestrian": (0.7, 0.7, 1.8), "bus": (11, 2.9, 3.4)}
    length, width, height = sizes.get(kind, (2.0, 0.8, 1.5))
    box = [[distance_m, 0.0, height / 2, length, width, height, heading_rad]]
    look = look_index(KIND_NAMES.index(kind), 0, True)
    return Objects(np.array(box), np.array([look]), np.ones(1))


@pytest.mark.parametrize("kind", ["car", "truck", "bus", "trailer", "pedestrian", "bicycle"])
def test_front_is_much_brighter_than_rear(kind: str) -> None:
    camera = make_rig(np.random.default_rng(0), WIDTH, HEIGHT)[0].placed(np.zeros(2), 0.0)
    brightness = []
    for heading in (np.pi, 0.0):
        image = Painter(None).paint(camera, _one_object(kind, heading, 14.0)).image
        painted = image[image.any(axis=2)]
        brightness.append(painted.mean())
    assert brightness[0] > 1.6 * brightness[1]


def test_sides_show_the_heading_on_both_faces() -> None:
    """On the left and on the right face the front third is brighter than the rear third."""
    look = look_bank()[look_index(KIND_NAMES.index("truck"), 0, True)]
    assert FACE_NORMALS[LEFT, 1] == 1
    for face in (LEFT, LEFT + 1):
        rows = (look.face == face) & look.is_face
        x, value = look.corners[rows].mean(axis=1)[:, 0], look.color[rows].sum(axis=1)
        assert value[x > 0.3].min() > 1.5 * value[x < -0.3].max()


def test_decals_stay_on_their_faces() -> None:
    for look in look_bank():
        assert np.abs(look.corners).max() <= 0.5 + 1e-9
        axis = np.abs(FACE_NORMALS[look.face]).argmax(axis=1)
        at = np.take_along_axis(look.corners, axis[:, None, None], axis=2)[..., 0]
        np.testing.assert_array_equal(np.abs(at), 0.5)
        assert {FRONT, REAR} <= set(look.face.tolist())


def test_no_two_classes_share_a_hue() -> None:
    """Strong colours of different classes are at least 20 degrees of hue apart."""
    strong = [
        (kind, hue)
        for kind, shades in SHADES.items()
        for hue, saturation, _ in shades
        if saturation > 0.3 and kind != "pedestrian"
    ]
    for kind, hue in strong:
        for other, other_hue in strong:
            if kind != other:
                assert abs((hue - other_hue + 180) % 360 - 180) >= 15, (kind, other)
    for kind in ("truck", "bus", "trailer", "construction_vehicle", "motorcycle", "bicycle"):
        assert len(SHADES[kind]) >= 2
        look = look_bank()[look_index(KIND_NAMES.index(kind), 0, False)]
        middle = look.color[(look.face == LEFT) & look.is_face][1]
        hue = colorsys.rgb_to_hsv(*middle)[0] * 360
        assert abs((hue - SHADES[kind][0][0] + 180) % 360 - 180) < 2


def test_rigs_differ_from_scene_to_scene() -> None:
    first, second = (make_rig(np.random.default_rng(seed), 800, 450) for seed in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert a.yaw_rad != b.yaw_rad and a.focal_px != b.focal_px
        assert abs(a.yaw_rad - b.yaw_rad) <= np.radians(1.0) + 1e-5
        np.testing.assert_allclose(a.intrinsic[0][2] / 800, 808 / 1600)
