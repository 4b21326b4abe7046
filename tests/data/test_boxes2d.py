"""2D targets of a sample, and which of them hide behind others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from streampetr_vit.data.boxes2d import transform_boxes2d
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.data.nuscenes.spec import CONVERTER_CLASS_NAMES, NUSCENES
from streampetr_vit.data.transforms import ImageAugmentation, ImageDraw, SceneAugmentation
from streampetr_vit.structures import Boxes2D

SIZE = (32, 80)  # of stored pictures of 160x90: scale 0.5, the upper 13 rows are cut off


def _mapper(flip: float = 0.0, **options) -> NuScenesMapper:
    image = ImageAugmentation(SIZE, (0.5, 0.5), flip_probability=flip)
    values = {"training": True, "image_aug": image, "boxes2d": True, **options}
    return NuScenesMapper(**values)


def _record(record: FrameRecord) -> FrameRecord:
    """Two objects before six cameras in the lidar's place: one without points, one of no class."""
    boxes = np.zeros((2, 9))
    boxes[:, :6] = [[1, 2, 10, 2, 6, 4], [0, 0, 20, 1, 1, 1]]
    return dataclasses.replace(
        record,
        camera_to_lidar=np.tile(np.eye(4), (6, 1, 1)),
        camera_intrinsics=np.tile([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]], (6, 1, 1)),
        gt_boxes=boxes,
        gt_rotation=np.array([[1.0, 0, 0, 0]] * 2),
        gt_labels=np.array([2, -1]),
        num_lidar_pts=np.zeros(2, np.int32),
        num_radar_pts=np.zeros(2, np.int32),
        instance=np.arange(2, dtype=np.int32),
    )


@pytest.mark.parametrize(
    ("flip", "corners", "center"),
    [
        (0.0, [40, 3.25, 52.5, 32], [45, 19.5]),
        (1.0, [27.5, 3.25, 40, 32], [35, 19.5]),
    ],
)
def test_2d_boxes_follow_the_pictures(
    handmade_records: FrameRecords, flip: float, corners: list[float], center: list[float]
) -> None:
    """Stored: (80, 32.5, 105, 90) with its centre at (90, 65)."""
    for scene_aug in (None, SceneAugmentation()):
        mapper = _mapper(flip, scene_aug=scene_aug)
        sample = mapper(_record(handmade_records[0]), rng=np.random.default_rng(0))
        assert len(sample.boxes2d) == 6
        for boxes in sample.boxes2d:
            torch.testing.assert_close(boxes.corners, torch.tensor([corners]))
            torch.testing.assert_close(boxes.centers, torch.tensor([center]))
            assert boxes.depths.tolist() == [10] and boxes.labels.tolist() == [2]
        assert len(sample.gt_boxes) == 0  # no sensor points: no 3D target


def test_both_class_orders_at_once(handmade_records: FrameRecords) -> None:
    record = _record(handmade_records[0])
    record = dataclasses.replace(record, num_lidar_pts=np.ones(2, np.int32))
    classes = [NUSCENES.classes[NUSCENES.class_names.index(n)] for n in CONVERTER_CLASS_NAMES]
    reordered = dataclasses.replace(NUSCENES, classes=classes)
    mapper = _mapper(class_names_2d=CONVERTER_CLASS_NAMES)
    sample = mapper(record, rng=np.random.default_rng(0))
    assert sample.gt_labels.tolist() == [2]
    assert sample.boxes2d[0].labels.tolist() == [4]
    labels = np.array([4, -1])  # the same objects in a data set of the other order
    record = dataclasses.replace(record, spec=reordered, gt_labels=labels)
    sample = _mapper()(record, rng=np.random.default_rng(0))
    assert sample.gt_labels.tolist() == sample.boxes2d[0].labels.tolist() == [4]


def test_2d_boxes_are_there_only_on_demand(handmade_records: FrameRecords) -> None:
    rng = np.random.default_rng(0)
    record = _record(handmade_records[0])
    assert _mapper(boxes2d=False)(record, rng=rng).boxes2d is None
    bare = dataclasses.replace(record, has_annotations=False)
    assert _mapper()(bare, rng=rng).boxes2d is None
    with pytest.raises(ValueError, match="boxes2d=True needs training=True"):
        _mapper(training=False)


def test_2d_boxes_take_no_draws(handmade_records: FrameRecords) -> None:
    with_boxes, without = (
        _mapper(0.5, boxes2d=flag, scene_aug=SceneAugmentation())(
            handmade_records[1], rng=np.random.default_rng(3)
        )
        for flag in (True, False)
    )
    assert torch.equal(with_boxes.lidar_to_image, without.lidar_to_image)


def _painted(boxes: Boxes2D, size: tuple[int, int]) -> list[int]:
    """Rows of `boxes` that remain visible, from far to near, pixel by pixel."""
    order = torch.argsort(boxes.depths, descending=True, stable=True).tolist()
    owner = np.zeros(size, np.int64)
    for number, row in enumerate(order):
        x1, y1, x2, y2 = boxes.corners[row].tolist()
        owner[int(np.ceil(y1)) : int(y2), int(np.ceil(x1)) : int(x2)] = number
    return [order[number] for number in np.unique(owner)]


@pytest.mark.parametrize("seed", range(30))
def test_hidden_boxes_are_those_without_a_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    size = (24, 60)
    place = rng.uniform((-5, -5, -5, -5), (60, 24, 60, 24), (count, 4))
    top_left, bottom_right = np.minimum(place[:, :2], place[:, 2:]), place[:, 2:] + 3
    boxes = Boxes2D(
        torch.from_numpy(np.concatenate((top_left, bottom_right), axis=1)).float(),
        torch.zeros(count, 2),
        torch.arange(count),
        torch.from_numpy(rng.integers(1, 9, count)).float(),
    )
    draw = ImageDraw(1.0, (60, 24), (0, 0), size)
    in_picture = transform_boxes2d(boxes, draw, drop_hidden=False)
    expected = in_picture.labels[_painted(in_picture, size)]
    assert transform_boxes2d(boxes, draw).labels.tolist() == expected.tolist()


def test_a_box_must_be_high_and_wide_enough() -> None:
    corners = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 1], [0, 0, 1, 9], [0, 0, 2, 2]])
    boxes = Boxes2D(corners, torch.zeros(4, 2), torch.arange(4), torch.ones(4))
    draw = ImageDraw(1.0, (80, 32), (0, 0), SIZE)
    kept = transform_boxes2d(boxes, draw, min_size_px=2.0, drop_hidden=False)
    assert kept.labels.tolist() == [0, 3]
