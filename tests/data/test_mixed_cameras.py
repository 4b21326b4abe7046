"""Own rigs: other cameras, pictures of several sizes, and no lidar."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import handmade_tables
import numpy as np
import pytest
from handmade_tables import Tables, row_by_token
from pyquaternion import Quaternion

from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.data.nuscenes.tables import TableError
from streampetr_vit.data.transforms import ImageAugmentation, SceneAugmentation
from streampetr_vit.structures import DatasetSpec, Sample

SIZE = (32, 80)
RANDOM = ImageAugmentation(SIZE, (0.5, 0.7), bottom_crop_range=(0.0, 0.05))
# (width, height) by camera: the first three as the tables say, then twice as large, then 4:3.
STORED = [(160, 90)] * 3 + [(320, 180)] * 2 + [(240, 180)]
# x right, y forward, z up, as nuScenes' lidar.
NUSCENES_AXES = [0.94, 0.0, 1.84, 0.7071068, 0.0, 0.0, -0.7071068]


@pytest.fixture(scope="module")
def mixed_record(handmade_records: FrameRecords) -> FrameRecord:
    """A frame whose cameras have pictures of three sizes, with one box before each camera.

    Box k is in the middle of picture k, at 0.7 of its height.
    """
    record = handmade_records[0]
    intrinsics = np.stack(
        [[[0.8 * w, 0, w / 2], [0, 0.8 * w, h / 2], [0, 0, 1]] for w, h in STORED]
    )
    height, focal = (intrinsics[:, 1, 2] * 2, intrinsics[:, 1, 1])
    in_camera = np.stack((np.zeros(6), 8 * 0.2 * height / focal, np.full(6, 8.0), np.ones(6)), 1)
    centers = (record.camera_to_lidar @ in_camera[:, :, None])[:, :3, 0]
    boxes = np.zeros((6, 9))
    boxes[:, :3], boxes[:, 3:6] = centers, 0.5
    return dataclasses.replace(
        record,
        camera_intrinsics=intrinsics,
        image_sizes=np.array(STORED, np.int32),
        gt_boxes=boxes,
        gt_rotation=np.array([[1.0, 0, 0, 0]] * 6),
        gt_labels=np.zeros(6, np.int64),
        num_lidar_pts=np.ones(6, np.int32),
        num_radar_pts=np.zeros(6, np.int32),
        instance=np.arange(6, dtype=np.int32),
    )


def _spot(size: tuple[int, int]) -> np.ndarray:
    """A picture with a bright spot where `mixed_record` has its box."""
    width, height = size
    x, y = np.arange(width) - width / 2, np.arange(height) - 0.7 * height
    distance2 = x[None] ** 2 + y[:, None] ** 2
    bright = 255 * np.exp(-distance2 / (2 * (0.015 * width) ** 2))
    return np.repeat(bright.astype(np.uint8)[..., None], 3, axis=2)


def _check_spots(sample: Sample) -> None:
    """Box k projects onto the spot of picture k."""
    for camera, image in enumerate(sample.images[:, 0].double().numpy()):
        center = np.append(sample.gt_boxes[camera, :3].double().numpy(), 1)
        image_point = sample.lidar_to_image[camera].double().numpy() @ center
        rows, columns = np.indices(image.shape)
        spot = [(columns * image).sum() / image.sum(), (rows * image).sum() / image.sum()]
        # Pixel centres and the mirror axis of released weights: a pixel, see test_projection.
        np.testing.assert_allclose(image_point[:2] / image_point[2], spot, atol=1.5)


def test_pictures_of_two_sizes_show_the_box_where_it_projects(
    mixed_record: FrameRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streampetr_vit.data.mapper.read_image", lambda path, size: _spot(size))
    _check_spots(NuScenesMapper(training=False, image_aug=RANDOM)(mixed_record))
    scene_aug = SceneAugmentation(translation_std_m=(0.5, 0.5, 0.2))
    training = NuScenesMapper(training=True, image_aug=RANDOM, scene_aug=scene_aug)
    for seed in range(8):
        _check_spots(training(mixed_record, rng=np.random.default_rng(seed)))


def test_the_scale_of_another_camera_would_be_seen(
    mixed_record: FrameRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above can fail."""
    monkeypatch.setattr("streampetr_vit.data.mapper.read_image", lambda path, size: _spot(size))
    sample = NuScenesMapper(training=False, image_aug=RANDOM)(mixed_record)
    wrong = sample.lidar_to_image.clone()
    wrong[3, :2] *= 2  # as if its picture had the first camera's size
    with pytest.raises(AssertionError):
        _check_spots(dataclasses.replace(sample, lidar_to_image=wrong))


def test_each_size_has_its_own_scale_and_crop() -> None:
    draws = RANDOM.draw(STORED, np.random.default_rng(3))
    fills = [RANDOM.fixed(size).scale for size in STORED]
    assert fills == [0.5] * 3 + [0.25] * 2 + [1 / 3]
    # Every picture fills the input as much as the first one does.
    filled = [draw.scale / fill for draw, fill in zip(draws, fills, strict=True)]
    np.testing.assert_allclose(filled, filled[0], rtol=1e-12)
    assert 1.0 <= filled[0] <= 1.4
    assert draws[0] == draws[1] == draws[2] and draws[3] == draws[4]
    assert len({draw.crop_origin for draw in draws}) == 2  # 16:9 pictures meet, the 4:3 is taller
    assert draws[5].crop_origin[1] > draws[0].crop_origin[1]
    assert {draw.flip for draw in draws} == {draws[0].flip}
    assert {draw.final_size for draw in draws} == {SIZE}


@pytest.mark.parametrize("size", [(1600, 900), (1280, 963), (400, 225), (77, 31)])
def test_pictures_of_one_size_keep_every_bit_of_the_drawn_scale(size: tuple[int, int]) -> None:
    augmentation = ImageAugmentation((320, 800), (0.47, 0.625))
    for seed in range(50):
        drawn = np.random.default_rng(seed).uniform(0.47, 0.625)
        draws = augmentation.draw([size] * 6, np.random.default_rng(seed))
        assert {draw.scale for draw in draws} == {float(drawn)}


def _without_lidar(tables: Tables) -> Tables:
    """The tables of a car without a lidar."""
    for name in ("sensor", "calibrated_sensor", "sample_data"):
        tables[name] = [row for row in tables[name] if "LIDAR_TOP" not in row["token"]]
    return tables


def _spec(lidar_to_ego: list[float], **changes) -> DatasetSpec:
    # The nearest in time, CAM_FRONT_RIGHT, is not the first.
    cameras = ("CAM_BACK", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT")
    values = {"cameras": cameras, "lidar": None, "lidar_to_ego": lidar_to_ego, **changes}
    return dataclasses.replace(NUSCENES, **values)


def _matrix(translation: list[float], rotation: list[float]) -> np.ndarray:
    matrix = Quaternion(rotation).transformation_matrix
    matrix[:3, 3] = translation
    return matrix


def _matrix_of(row: dict) -> np.ndarray:
    return _matrix(row["translation"], row["rotation"])


def test_without_a_lidar_the_stated_frame_stands_for_it(tmp_path: Path) -> None:
    tables = _without_lidar(handmade_tables.make_tables())
    stated = [0.5, -0.2, 1.5, *Quaternion(axis=(0.1, 0, 1), radians=0.7).elements]
    spec = _spec(stated)
    records = load_records(handmade_tables.write_tables(tables, tmp_path), "v1.0-mini", spec=spec)
    assert len(records) == 9
    for record in records:
        at_nearest = f"pose-{record.token}-CAM_FRONT_RIGHT-True"
        pose = _matrix_of(row_by_token(tables["ego_pose"], at_nearest))
        np.testing.assert_allclose(record.ego_to_global.matrix(), pose, atol=1e-12)
        expected = _matrix(stated[:3], stated[3:])
        np.testing.assert_allclose(record.lidar_to_ego.matrix(), expected, atol=1e-12)
        sample_row = row_by_token(tables["sample"], record.token)
        assert record.timestamp_us == sample_row["timestamp"]
        to_frame = np.linalg.inv(pose @ expected)
        for slot, camera in enumerate(spec.cameras):
            data = row_by_token(tables["sample_data"], f"{record.token}-{camera}-True")
            calibration = row_by_token(tables["calibrated_sensor"], data["calibrated_sensor_token"])
            ego = _matrix_of(row_by_token(tables["ego_pose"], data["ego_pose_token"]))
            np.testing.assert_allclose(
                record.camera_to_lidar[slot], to_frame @ ego @ _matrix_of(calibration), atol=1e-9
            )
            assert record.camera_timestamps_us[slot] == data["timestamp"]
        rows = [r for r in tables["sample_annotation"] if r["sample_token"] == record.token]
        centers = [(to_frame @ [*row["translation"], 1])[:3] for row in rows]
        np.testing.assert_allclose(record.gt_boxes[:, :3], centers, atol=1e-9)
        for row, rotation in zip(rows, record.gt_rotation, strict=True):
            turned = to_frame[:3, :3] @ Quaternion(row["rotation"]).rotation_matrix
            np.testing.assert_allclose(Quaternion(rotation).rotation_matrix, turned, atol=1e-9)


def test_boxes_in_the_axes_of_nuscenes(tmp_path: Path) -> None:
    """In numbers: a car at (100, 50) that faces +y of the map, and boxes ahead and to its right."""
    tables = _without_lidar(handmade_tables.make_tables())
    for row in tables["ego_pose"]:
        row["translation"], row["rotation"] = (
            [100.0, 50.0, 0.0],
            [math.sqrt(0.5), 0, 0, math.sqrt(0.5)],
        )
    places = {
        "car": ([100.0, 50.94 + 10, 1.84], [0, 10, 0]),
        "dog": ([103.0, 50.94, 2.84], [3, 0, 1]),
    }
    facing = [math.sqrt(0.5), 0, 0, math.sqrt(0.5)]  # as the car
    rows = [r for r in tables["sample_annotation"] if r["instance_token"].endswith(tuple(places))]
    for row in rows:
        scene, track, frame = row["token"].rsplit("-", 2)
        row["translation"] = [*places[track][0]]
        row["translation"][1] += 2 * int(frame)  # 2 m to the front every 0.5 s
        row["rotation"] = facing
    tables["sample_annotation"] = rows
    root = handmade_tables.write_tables(tables, tmp_path)
    record = load_records(root, "v1.0-mini", spec=_spec(NUSCENES_AXES))[0]
    np.testing.assert_allclose(record.gt_boxes[:, :3], [[0, 10, 0], [3, 0, 1]], atol=1e-5)
    np.testing.assert_allclose(record.gt_boxes[:, 6], math.pi / 2, atol=1e-6)  # towards +y: ahead
    np.testing.assert_allclose(record.gt_boxes[:, 7:], [[0, 4]] * 2, atol=1e-5)
    # In the vehicle's own frame: x forward, y left, from the ground at the rear axle.
    record = load_records(root, "v1.0-mini", spec=_spec([0, 0, 0, 1, 0, 0, 0]))[0]
    expected = [[10.94, 0, 1.84], [0.94, -3, 2.84]]
    np.testing.assert_allclose(record.gt_boxes[:, :3], expected, atol=1e-9)
    np.testing.assert_allclose(record.gt_boxes[:, 6], 0, atol=1e-9)
    np.testing.assert_allclose(record.gt_boxes[:, 7:], [[4, 0]] * 2, atol=1e-9)


@pytest.mark.parametrize(
    ("values", "absent", "field"),
    [
        ({"cameras": ("CAM_FRONT", "CAM_ROOF", "CAM_DOOR")}, "CAM_ROOF, CAM_DOOR", "cameras"),
        ({"lidar": "LIDAR_ROOF"}, "LIDAR_ROOF", "lidar"),
    ],
)
def test_sensors_that_are_not_there(
    handmade_root: Path, values: dict, absent: str, field: str
) -> None:
    spec = dataclasses.replace(NUSCENES, **values)
    message = (
        f"sensor.json has no {absent}; it has CAM_BACK, .*LIDAR_TOP, RADAR_FRONT. "
        rf".*dataset_spec\.{field}"
    )
    with pytest.raises(TableError, match=message):
        load_records(handmade_root, handmade_tables.VERSION, spec=spec)


def test_a_set_without_the_lidar_that_nuscenes_has(tmp_path: Path) -> None:
    tables = _without_lidar(handmade_tables.make_tables())
    handmade_tables.write_tables(tables, tmp_path)
    with pytest.raises(TableError, match="no LIDAR_TOP; it has .* or null, in dataset_spec.lidar"):
        load_records(tmp_path, handmade_tables.VERSION)


def test_without_a_lidar_the_first_camera_needs_a_size_too(tmp_path: Path) -> None:
    tables = _without_lidar(handmade_tables.make_tables())
    row_by_token(tables["sample_data"], "scene-0061-1-CAM_BACK-True")["height"] = 0
    handmade_tables.write_tables(tables, tmp_path)
    with pytest.raises(TableError, match=r"'scene-0061-1' has width and height \[160, 0\]"):
        load_records(tmp_path, handmade_tables.VERSION, spec=_spec(NUSCENES_AXES))
