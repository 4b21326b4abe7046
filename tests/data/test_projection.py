"""Boxes land where the devkit projects them and where the pictures show them, augmented or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from nuscenes import NuScenes
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import BoxVisibility, view_points
from pyquaternion import Quaternion

from streampetr_vit.data.frame_geometry import FrameGeometry
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.data.transforms import ImageAugmentation, SceneAugmentation
from streampetr_vit.structures import Pose, Sample, box_corners
from synthetic_nuscenes import PRESETS
from synthetic_nuscenes.painter import Objects, Painter
from synthetic_nuscenes.scene import Scene, build_scene

VERSION = "v1.0-mini"
NEAR_M = 2.0
AUGMENTATION = ImageAugmentation((160, 400), (0.75, 1.15))
# Corner k of `box_corners` among the corners of the devkit's boxes.
CORNER_ORDER = [6, 5, 7, 4, 2, 1, 3, 0]


@pytest.fixture(scope="module")
def records(tiny_nuscenes: Path) -> FrameRecords:
    return load_split(tiny_nuscenes, VERSION, "mini_val")


@pytest.fixture(scope="module")
def devkit(tiny_nuscenes: Path) -> NuScenes:
    return NuScenes(VERSION, str(tiny_nuscenes), verbose=False)


def _project(boxes: torch.Tensor, lidar_to_image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(N, n, 8, 2) pixels and (N, n, 8) depths of the corners in N cameras."""
    corners = box_corners(boxes)
    points = torch.cat((corners, torch.ones_like(corners[..., :1])), dim=-1).double()
    image = torch.einsum("cij,nkj->cnki", lidar_to_image.double(), points)
    return (image[..., :2] / image[..., 2:3]).numpy(), image[..., 2].numpy()


def _devkit_corners(devkit: NuScenes, record: FrameRecord) -> np.ndarray:
    """(N, n, 8, 2) pixels of the annotations, by the devkit alone."""
    sample, views = devkit.get("sample", record.token), []
    for channel in NUSCENES.cameras:
        _, boxes, intrinsic = devkit.get_sample_data(
            sample["data"][channel], box_vis_level=BoxVisibility.NONE
        )
        corners = [view_points(box.corners(), intrinsic, normalize=True)[:2].T for box in boxes]
        views.append(np.stack(corners)[:, CORNER_ORDER])
    return np.stack(views)


def _largest_error(actual: np.ndarray, expected: np.ndarray, depth: np.ndarray) -> float:
    visible = (depth > NEAR_M).all(axis=-1)
    assert visible.sum() > 10
    return float(np.abs(actual - expected)[visible].max())


def test_corner_order() -> None:
    box = Box([0, 0, 0], [2, 4, 6], Quaternion())
    ours = box_corners(torch.tensor([[0, 0, 0, 4.0, 2, 6, 0, 0, 0]]))[0]
    np.testing.assert_array_equal(box.corners().T[CORNER_ORDER], ours)


def test_records_project_as_the_devkit_does(devkit: NuScenes, records: FrameRecords) -> None:
    for record in records:
        geometry = FrameGeometry.of_record(record)
        pixels, depth = _project(torch.tensor(record.gt_boxes), geometry.lidar_to_image)
        assert _largest_error(pixels, _devkit_corners(devkit, record), depth) < 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_augmented_samples_project_as_the_devkit_does(
    devkit: NuScenes, records: FrameRecords, seed: int
) -> None:
    mapper = NuScenesMapper(
        training=True,
        image_aug=AUGMENTATION,
        scene_aug=SceneAugmentation(translation_std_m=(0.5, 0.5, 0.5)),
        use_valid_flag=False,
    )
    record = records[seed]
    sample = mapper(record, rng=np.random.default_rng(seed))
    pixels, depth = _project(sample.gt_boxes, sample.lidar_to_image)
    matrix = AUGMENTATION.draw([(400, 225)], np.random.default_rng(seed))[0].matrix()
    expected = _devkit_corners(devkit, record)[:, record.gt_labels >= 0]
    expected = expected @ matrix[:2, :2].T.astype(np.float64) + matrix[:2, 2]
    assert _largest_error(pixels, expected, depth) < 5e-3  # float32 boxes and matrices


def _painted_alone(scene: Scene, frame: int, actor: int) -> dict[str, np.ndarray]:
    """One object of a frame on black, overexposed so that it is bright all over, by camera."""
    time, objects = float(scene.times_s[frame]), scene.objects(frame)
    alone = Objects(objects.boxes[[actor]], objects.look[[actor]], np.array([1000.0]))
    pictures = {}
    for camera in scene.cameras:
        ego_xy, ego_yaw = scene.world.ego_pose(time + camera.delay_us / 1e6)
        placed = camera.placed(ego_xy, ego_yaw)
        pictures[camera.name] = Painter(None).paint(placed, alone).image
    return pictures


def _rising_edge(profile: np.ndarray) -> float:
    """Where a brightness profile first crosses half of white, between pixel centres."""
    after = int((profile >= 128).argmax())
    step = float(profile[after]) - float(profile[after - 1])
    return after - (float(profile[after]) - 128) / step


def _edges(picture: np.ndarray) -> np.ndarray:
    """(left, top, right, bottom) of what is bright in a (3, H, W) picture."""
    bright = picture.max(axis=0)
    columns, rows = bright.max(axis=0), bright.max(axis=1)
    right, bottom = len(columns) - 1, len(rows) - 1
    return np.array(
        [
            _rising_edge(columns),
            _rising_edge(rows),
            right - _rising_edge(columns[::-1]),
            bottom - _rising_edge(rows[::-1]),
        ]
    )


def _center_and_size(edges: np.ndarray) -> np.ndarray:
    """(left, top, right, bottom) -> centre and size; a soft outline is fatter on both sides."""
    return np.concatenate(((edges[:2] + edges[2:]) / 2, edges[2:] - edges[:2]))


def _errors_of_box(sample: Sample, box: torch.Tensor, content_px: float) -> list[np.ndarray]:
    """Painted minus projected (x, y, width, height), in each camera that sees a box whole.

    Args:
        sample: of the mapper.
        box: (1, 9), in the frame of the sample.
        content_px: width of the part of the pictures that is not black filling.
    """
    height = sample.images.shape[-2]
    pixels, depth = _project(box, sample.lidar_to_image)
    errors = []
    for image, points, near in zip(sample.images, pixels[:, 0], depth[:, 0], strict=True):
        inside = (points > 2).all() and (points < (content_px - 3, height - 3)).all()
        if inside and (near > NEAR_M).all() and np.ptp(points, axis=0).min() > 4:
            projected = np.concatenate((points.min(axis=0), points.max(axis=0)))
            painted = _edges(image.numpy())
            errors.append(_center_and_size(painted) - _center_and_size(projected))
    return errors


def _content_px(mapper: NuScenesMapper, seed: int) -> float:
    """Width of the pictures without black filling; a flipped one has it on the left: skipped."""
    if not mapper.training:
        return 400
    draw = AUGMENTATION.draw([(400, 225)], np.random.default_rng(seed))[0]
    assert not draw.flip or draw.resized_size[0] >= 400, "choose another seed"
    return min(400, draw.resized_size[0])


def _errors_of_all_boxes(
    mapper: NuScenesMapper, record: FrameRecord, scene: Scene, frame: int, seed: int
) -> np.ndarray:
    """(boxes in view, 4): every annotated object painted alone and sent through the mapper."""
    tracks = [track for track in scene.tracks if track.first <= frame <= track.last]
    tracks = [track for track, label in zip(tracks, record.gt_labels, strict=True) if label >= 0]
    errors = []
    for row, track in enumerate(tracks):
        pictures = _painted_alone(scene, frame, track.actor)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "streampetr_vit.data.mapper.read_image",
                lambda path, size, pictures=pictures: pictures[path.parent.name],
            )
            sample = mapper(record, rng=np.random.default_rng(seed))
        assert len(sample.gt_boxes) == len(tracks)
        box = sample.gt_boxes[row : row + 1]
        errors += _errors_of_box(sample, box, _content_px(mapper, seed))
    return np.array(errors)


@pytest.fixture(scope="module")
def scene(records: FrameRecords) -> Scene:
    config = PRESETS["tiny"]
    train, val = config.scene_names()
    name = records.scene_names[0]
    return build_scene(config, name, (train + val).index(name))


def test_stored_pictures_show_boxes_where_they_project(records: FrameRecords, scene: Scene) -> None:
    whole = ImageAugmentation((225, 400), (1.0, 1.0))
    mapper = NuScenesMapper(training=False, image_aug=whole, use_valid_flag=False)
    errors = _errors_of_all_boxes(mapper, records[2], scene, frame=2, seed=0)
    assert len(errors) > 10
    assert np.abs(errors).max() < 1.0


def test_forgetting_the_cars_motion_would_be_seen(
    devkit: NuScenes, records: FrameRecords, scene: Scene
) -> None:
    """The check above can fail: one ego pose for all sensors is off by more than it allows."""
    record, sample = records[2], devkit.get("sample", records[2].token)
    static = []
    for channel in NUSCENES.cameras:
        data = devkit.get("sample_data", sample["data"][channel])
        camera = devkit.get("calibrated_sensor", data["calibrated_sensor_token"])
        pose = Pose(np.array(camera["translation"]), np.array(camera["rotation"]))
        static.append(np.linalg.inv(record.lidar_to_ego.matrix()) @ pose.matrix())
    wrong = dataclasses.replace(record, camera_to_lidar=np.stack(static))
    whole = ImageAugmentation((225, 400), (1.0, 1.0))
    mapper = NuScenesMapper(training=False, image_aug=whole, use_valid_flag=False)
    errors = _errors_of_all_boxes(mapper, wrong, scene, frame=2, seed=0)
    assert np.abs(errors).max() > 3


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_augmented_pictures_show_boxes_where_they_project(
    records: FrameRecords, scene: Scene, seed: int
) -> None:
    mapper = NuScenesMapper(
        training=True,
        image_aug=AUGMENTATION,
        scene_aug=SceneAugmentation(translation_std_m=(0.5, 0.5, 0.2)),
        use_valid_flag=False,
    )
    errors = _errors_of_all_boxes(mapper, records[3], scene, frame=3, seed=seed)
    assert len(errors) > 10
    # One pixel of it is owed to released weights: a flip maps u to W - u instead of W - 1 - u, and
    # the matrix holds the drawn scale where the picture has the truncated size.
    assert np.abs(errors).max() < 1.5
