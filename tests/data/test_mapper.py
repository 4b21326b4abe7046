"""The sample: fields, types, pictures, boxes, and what happens to broken pictures."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import handmade_tables
import numpy as np
import pytest
import torch
from PIL import Image

from streampetr_vit.data.annotations import boxes_of_record, filter_by_range, label_table
from streampetr_vit.data.image_io import BadImageError, read_image
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.data.transforms import ImageAugmentation, SceneAugmentation
from streampetr_vit.modeling.ops.geometry import transform_points
from streampetr_vit.structures import Frame, Pose

SIZE = (32, 80)
FIXED = ImageAugmentation(SIZE, (0.5, 0.5), flip_probability=0.0)
RANDOM = ImageAugmentation(SIZE, (0.5, 0.7))


def _training_mapper(**options: object) -> NuScenesMapper:
    values = {"training": True, "image_aug": RANDOM, "scene_aug": SceneAugmentation(), **options}
    return NuScenesMapper(**values)


def test_fields_and_types(handmade_records: FrameRecords) -> None:
    record = handmade_records[1]
    sample = _training_mapper()(record, continues_stream=True, rng=np.random.default_rng(0))
    expected = {
        "images": ((6, 3, *SIZE), torch.uint8),
        "intrinsics": ((6, 4, 4), torch.float32),
        "lidar_to_camera": ((6, 4, 4), torch.float32),
        "lidar_to_image": ((6, 4, 4), torch.float32),
        "lidar_to_global": ((4, 4), torch.float64),
        "global_to_lidar": ((4, 4), torch.float64),
        "timestamp_s": ((), torch.float64),
        "continues_stream": ((), torch.bool),
        "gt_boxes": ((len(sample.gt_boxes), 9), torch.float32),
        "gt_labels": ((len(sample.gt_boxes),), torch.int64),
    }
    for key, (shape, dtype) in expected.items():
        value = getattr(sample, key)
        assert (tuple(value.shape), value.dtype) == (shape, dtype), key
    assert sample.images.is_contiguous()
    assert sample.timestamp_s.item() == record.timestamp_us / 1e6
    assert sample.continues_stream.item() is True
    assert sample.sample_token == record.token
    assert sample.scene_token == record.scene_token
    assert sample.scene_name == record.scene_name
    assert isinstance(sample.lidar_to_ego, Pose) and isinstance(sample.ego_to_global, Pose)
    assert [Path(p) for p in sample.image_paths] == [record.root / p for p in record.camera_paths]
    assert sample.bad_images == []
    frame = Frame.collate([sample, sample])
    assert frame.images.shape == (2, 6, 3, *SIZE)
    assert frame.rig.lidar_to_image.shape == (2, 6, 4, 4)


def test_pictures_are_rgb_and_in_camera_order(handmade_records: FrameRecords) -> None:
    record = handmade_records[2]
    images = NuScenesMapper(training=False, image_aug=FIXED)(record).images
    for camera, path in enumerate(record.camera_paths):
        stored = Image.open(record.root / path).convert("RGB")
        expected = np.asarray(stored.resize((80, 45)).crop((0, 13, 80, 45)), dtype=np.int64)
        actual = images[camera].permute(1, 2, 0).numpy().astype(np.int64)
        # Two JPEG decoders may differ by a grey level or two.
        assert np.abs(actual - expected).max() <= 3


def test_poses_are_consistent(handmade_records: FrameRecords) -> None:
    sample = _training_mapper()(handmade_records[3], rng=np.random.default_rng(5))
    product = sample.lidar_to_global @ sample.global_to_lidar
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0)
    plain = NuScenesMapper(training=False, image_aug=FIXED)(handmade_records[3])
    torch.testing.assert_close(plain.lidar_to_camera, sample.lidar_to_camera)
    torch.testing.assert_close(plain.lidar_to_image, plain.intrinsics @ plain.lidar_to_camera)


def test_global_box_centres_do_not_move_under_scene_augmentation(
    handmade_records: FrameRecords,
) -> None:
    """What the memory keeps in the global frame is the same whatever was drawn."""
    record = handmade_records[0]
    centers = []
    for seed in (1, 2):
        sample = _training_mapper()(record, rng=np.random.default_rng(seed))
        centers.append(transform_points(sample.gt_boxes[:, :3], sample.lidar_to_global))
    torch.testing.assert_close(*centers, atol=2e-5, rtol=0)  # the boxes are float32


def test_a_far_origin_costs_no_precision(handmade_records: FrameRecords) -> None:
    """One place of the world in two frames with other draws, in UTM coordinates too."""
    mapper, utm_m = _training_mapper(), np.array([500_000.0, 5_000_000.0, 300.0])
    seen = []
    for shift_m in (0 * utm_m, utm_m):
        samples = []
        for row in (0, 1):
            record, rng = handmade_records[row], np.random.default_rng(row)
            pose = record.ego_to_global
            moved = dataclasses.replace(pose, translation_m=pose.translation_m + shift_m)
            samples.append(mapper(dataclasses.replace(record, ego_to_global=moved), rng=rng))
        place = transform_points(torch.tensor([[10.0, -20.0, 1.0]]), samples[0].lidar_to_global)
        seen.append(transform_points(place, samples[1].global_to_lidar))
    torch.testing.assert_close(*seen, atol=1e-7, rtol=0)


def test_training_needs_a_source_of_draws(handmade_records: FrameRecords) -> None:
    with pytest.raises(ValueError, match="needs rng"):
        _training_mapper()(handmade_records[0])


def test_same_seed_same_sample(handmade_records: FrameRecords) -> None:
    a, b, c = (
        _training_mapper()(handmade_records[0], rng=np.random.default_rng(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.lidar_to_image, b.lidar_to_image)
    assert not torch.equal(a.lidar_to_image, c.lidar_to_image)


def _record_with_boxes(record: FrameRecord, boxes: list[list[float]], **changes) -> FrameRecord:
    count = len(boxes)
    rows = np.array(boxes, dtype=np.float64).reshape(count, 9)
    half, zero = rows[:, 6] / 2, np.zeros(count)
    values = {
        "gt_boxes": rows,
        "gt_rotation": np.stack((np.cos(half), zero, zero, np.sin(half)), axis=1),
        "gt_labels": np.zeros(count, np.int64),
        "num_lidar_pts": np.ones(count, np.int32),
        "num_radar_pts": np.zeros(count, np.int32),
        "instance": np.arange(count, dtype=np.int32),
    }
    return dataclasses.replace(record, **{**values, **changes})


def _box(x: float = 0, y: float = 0, z: float = 0, yaw: float = 0, vx: float = 0, vy: float = 0):
    return [x, y, z, 1.0, 1.0, 1.0, yaw, vx, vy]


def test_range_is_strict_and_seen_from_above(handmade_records: FrameRecords) -> None:
    limit = float(np.float32(51.2))
    inside = float(np.nextafter(np.float32(51.2), np.float32(0)))
    kept, dropped = [_box(inside), _box(0, -inside), _box(z=99)], [_box(limit), _box(0, -limit)]
    record = _record_with_boxes(handmade_records[0], kept + dropped)
    boxes, labels = boxes_of_record(record)
    boxes, _ = filter_by_range(boxes, labels, (-limit, -limit, -5, limit, limit, 3))
    assert boxes[:, :3].tolist() == [row[:3] for row in kept]


def test_range_limits_x_and_y_each_by_its_own(handmade_records: FrameRecords) -> None:
    record = _record_with_boxes(handmade_records[0], [_box(0, 40), _box(40, 0), _box(-9, -49)])
    boxes, labels = filter_by_range(*boxes_of_record(record), (-10, -50, -5, 10, 50, 3))
    assert boxes[:, :2].tolist() == [[0, 40], [-9, -49]]
    assert len(labels) == 2


def test_yaw_is_wrapped_to_half_open_circle(handmade_records: FrameRecords) -> None:
    record = _record_with_boxes(handmade_records[0], [_box(yaw=y) for y in (4.0, -4.0, math.pi)])
    boxes, labels = boxes_of_record(record)
    boxes, _ = filter_by_range(boxes, labels, (-50, -50, -5, 50, 50, 3))
    expected = torch.tensor([4 - 2 * math.pi, 2 * math.pi - 4, -math.pi])
    torch.testing.assert_close(boxes[:, 6], expected, atol=1e-6, rtol=0)


def test_boxes_without_points_other_classes_and_unknown_velocity(
    handmade_records: FrameRecords,
) -> None:
    nan = math.nan
    record = _record_with_boxes(
        handmade_records[0],
        [_box(1, vx=nan, vy=nan), _box(2), _box(3), _box(4, vx=1, vy=2), _box(60)],
        gt_labels=np.array([0, 8, -1, 8, 0]),
        num_lidar_pts=np.array([1, 0, 5, 0, 1], np.int32),
        num_radar_pts=np.array([0, 0, 0, 2, 0], np.int32),
    )
    training = NuScenesMapper(training=True, image_aug=FIXED)
    sample = training(record, rng=np.random.default_rng(0))
    assert sample.gt_boxes[:, 0].tolist() == [1, 4]
    assert sample.gt_boxes[:, 7:].tolist() == [[0, 0], [1, 2]]
    assert sample.gt_labels.tolist() == [0, 8]
    everything = NuScenesMapper(training=True, image_aug=FIXED, use_valid_flag=False)
    sample = everything(record, rng=np.random.default_rng(0))
    assert sample.gt_boxes[:, 0].tolist() == [1, 2, 4]
    # In evaluation boxes are for pictures only: the range stays out of it.
    sample = NuScenesMapper(training=False, image_aug=FIXED)(record)
    assert sample.gt_boxes[:, 0].tolist() == [1, 4, 60]


def test_other_names_order_the_labels() -> None:
    table = label_table(NUSCENES, ("pedestrian", "car"))
    # Of a car, a pedestrian, a traffic cone, and an object of no class.
    assert table[torch.tensor([0, 8, 9, -1])].tolist() == [1, 0, -1, -1]
    with pytest.raises(ValueError, match="'tank'.*no classes of the data set"):
        label_table(NUSCENES, ("tank",))


def test_no_boxes_keep_their_types(handmade_records: FrameRecords) -> None:
    record = _record_with_boxes(handmade_records[0], [])
    sample = _training_mapper()(record, rng=np.random.default_rng(0))
    assert (sample.gt_boxes.shape, sample.gt_labels.dtype) == ((0, 9), torch.int64)


def test_no_annotations_no_targets(handmade_records: FrameRecords) -> None:
    record = _record_with_boxes(handmade_records[0], [], has_annotations=False)
    sample = NuScenesMapper(training=False, image_aug=FIXED)(record)
    assert sample.gt_boxes is None and sample.gt_labels is None


def test_cached_pictures_are_the_same(
    handmade_records: FrameRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapper = NuScenesMapper(training=True, image_aug=FIXED, cache_images=True)
    first = mapper(handmade_records[0], rng=np.random.default_rng(0)).images.clone()
    monkeypatch.setattr("streampetr_vit.data.mapper.read_image", None)  # a call would fail
    second = mapper(handmade_records[0], rng=np.random.default_rng(1)).images
    assert torch.equal(first, second)
    second.zero_()  # what a caller does to its sample does not reach the cache
    third = mapper(handmade_records[0], rng=np.random.default_rng(1)).images
    assert torch.equal(first, third)


def test_a_cached_picture_is_not_taken_for_another_crop(handmade_records: FrameRecords) -> None:
    """The pictures are wider than the input: each draw has a place of its own."""
    narrow = ImageAugmentation((40, 48), (0.5, 0.5), flip_probability=0.0)
    cached, fresh = (
        NuScenesMapper(training=True, image_aug=narrow, cache_images=on) for on in (True, False)
    )
    for seed in range(3):
        pair = [
            mapper(handmade_records[0], rng=np.random.default_rng(seed))
            for mapper in (cached, fresh)
        ]
        assert torch.equal(pair[0].images, pair[1].images)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="cache_images needs a fixed image transform.*0.7"):
        _training_mapper(cache_images=True)
    with pytest.raises(ValueError, match="on_bad_image must be .*'ignore'"):
        _training_mapper(on_bad_image="ignore")
    with pytest.raises(ValueError, match="point_cloud_range must be 6"):
        _training_mapper(point_cloud_range=(-51.2, 51.2))


def _missing(path: Path) -> None:
    path.unlink()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _no_picture(path: Path) -> None:
    path.write_text("<html>404</html>")


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def _wrong_size(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros((45, 80, 3), np.uint8))


BROKEN = [
    (_missing, "cannot be read: No such file"),
    (_truncated, "is truncated: .* bytes without an end marker"),
    (_empty, "is none that can be decoded"),
    (_no_picture, r"is no picture but a web page \(HTML\): .* download the file itself"),
    (_pointer, "is no picture but a Git LFS pointer, .*: run `git lfs pull`"),
    (_wrong_size, "is 80x45 pixels, the table sample_data says 160x90"),
]


@pytest.fixture
def own_records(tmp_path: Path) -> FrameRecords:
    """Records of a set that a test may damage."""
    tables = handmade_tables.make_tables()
    handmade_tables.write_tables(tables, tmp_path)
    handmade_tables.write_pictures(tables, tmp_path)
    return load_records(tmp_path, handmade_tables.VERSION)


@pytest.mark.parametrize(("damage", "reason"), BROKEN, ids=lambda v: getattr(v, "__name__", ""))
def test_broken_picture(own_records: FrameRecords, damage, reason: str) -> None:
    record = own_records[1]
    path = record.root / record.camera_paths[2]
    damage(path)
    strict = NuScenesMapper(training=False, image_aug=FIXED)
    with pytest.raises(BadImageError, match=f"sample {record.token}: picture {path} {reason}") as e:
        strict(record)
    assert "or set dataloader.test.mapper.on_bad_image=count to go on" in str(e.value)
    tolerant = NuScenesMapper(training=False, image_aug=FIXED, on_bad_image="count")
    sample = tolerant(record)
    assert len(sample.bad_images) == 1
    assert record.token in sample.bad_images[0] and str(path) in sample.bad_images[0]
    black = [not image.any() for image in sample.images]
    assert black == [camera == 2 for camera in range(6)]


def test_a_broken_picture_of_training_names_the_training_setting(own_records: FrameRecords) -> None:
    (own_records.root / own_records[0].camera_paths[0]).unlink()
    with pytest.raises(BadImageError, match=r"set dataloader.train.mapper.on_bad_image=count to"):
        _training_mapper()(own_records[0], rng=np.random.default_rng(0))


def test_truncated_png(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.full((90, 160, 3), 7, np.uint8))
    assert read_image(path, (160, 90)).shape == (90, 160, 3)
    _truncated_bytes = path.read_bytes()[:-30]
    path.write_bytes(_truncated_bytes)
    with pytest.raises(BadImageError, match="truncated"):
        read_image(path, (160, 90))


def test_jpeg_cut_before_its_scan_behind_a_whole_thumbnail(tmp_path: Path) -> None:
    """A thumbnail in an EXIF segment has a scan and an end marker of its own."""
    picture, thumbnail = (
        cv2.imencode(".jpg", cv2.resize(np.eye(9, dtype=np.uint8) * 200, size))[1].tobytes()
        for size in ((160, 90), (32, 18))
    )
    exif = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "picture.jpg"
    whole = picture[:2] + exif + picture[2:]
    path.write_bytes(whole)
    assert read_image(path, (160, 90)).shape == (90, 160, 3)
    scan = whole.rindex(b"\xff\xda")
    for end in (2 + len(exif) - 1, 2 + len(exif), scan - 1, scan + 4, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(BadImageError, match=f"picture {path} is truncated"):
            read_image(path, (160, 90))


def test_kinds_of_jpeg_that_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    kinds = [cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_OPTIMIZE, cv2.IMWRITE_JPEG_RST_INTERVAL]
    for kind in kinds:
        whole = cv2.imencode(".jpg", noise, [kind, 1])[1].tobytes()
        for padding in (b"", b"\0" * 7):  # some cameras fill up the file
            path.write_bytes(whole + padding)
            assert read_image(path, (160, 90)).shape == (90, 160, 3)
