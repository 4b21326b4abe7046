"""What a training says of its data before it begins: boxes it does not see, pictures' scale."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import handmade_tables
import numpy as np
import pytest
from handmade_tables import VERSION, Tables

from streampetr_vit.data.build import build_train_loader, build_window_loader
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.nuscenes.spec import CONVERTER_CLASS_NAMES, NUSCENES
from streampetr_vit.data.training_checks import check_boxes, check_resize_range, count_boxes
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.errors import InputError

IMAGE = ImageAugmentation((16, 40), (0.25, 0.25))  # fills the input from 160x90
RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


def _mapper(**options: object) -> NuScenesMapper:
    return NuScenesMapper(training=True, image_aug=IMAGE, **options)


def _write(root: Path, change: Callable[[Tables], None]) -> dict[str, str]:
    tables = handmade_tables.make_tables()
    change(tables)
    handmade_tables.write_tables(tables, root)
    return {"root": str(root), "version": VERSION}


def _without_points(tables: Tables) -> None:
    for row in tables["sample_annotation"]:
        row["num_lidar_pts"] = row["num_radar_pts"] = 0


def _far_away(tables: Tables) -> None:
    for row in tables["sample_annotation"]:
        row["translation"][0] += 500


def _of_other_classes(tables: Tables) -> None:
    for row in tables["instance"]:
        row["category_token"] = "category-animal"


def test_counts_are_those_of_the_mapper(handmade_records: FrameRecords) -> None:
    for options in ({}, {"use_valid_flag": False}, {"point_cloud_range": (-9, -12, -5, 9, 15, 3)}):
        mapper = _mapper(on_bad_image="count", **options)
        samples = [mapper(r, rng=np.random.default_rng(0)) for r in handmade_records]
        labels = np.concatenate([sample.gt_labels.numpy() for sample in samples])
        counts = count_boxes(handmade_records, mapper)
        assert counts.used.tolist() == np.bincount(labels, minlength=10).tolist()
        assert counts.total == sum(len(record.gt_labels) for record in handmade_records)
        assert counts.of_no_class == {"animal": 9}
    # Of the chosen scenes only.
    chosen = handmade_records.select_scenes(["scene-0103"])
    assert count_boxes(chosen, _mapper()).of_no_class == {"animal": 4}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without_points, r"23 have no lidar or radar point .*use_valid_flag=False keeps them"),
        (_far_away, r"19 lie outside of \[-51.2, .*point_cloud_range sets it"),
        (_of_other_classes, r"32 are of .* no class takes: animal 32 \(dataset_spec.classes"),
    ],
)
@pytest.mark.parametrize("build", [build_train_loader, build_window_loader])
def test_a_training_without_a_box_does_not_begin(
    tmp_path: Path, change: Callable[[Tables], None], reason: str, build: Callable
) -> None:
    dataset = _write(tmp_path, change)
    options = {"window_length": 2} if build is build_window_loader else {}
    message = f"v1.0-mini has no box to train on: of 32 annotations 0 are left; .*{reason}"
    with pytest.raises(InputError, match=message):
        build(dataset, _mapper(), lanes_per_rank=1, num_workers=0, **options)


def test_scenes_without_annotations(handmade_root: Path, tmp_path: Path) -> None:
    def clear_one(tables: Tables) -> None:
        rows = tables["sample_annotation"]
        tables["sample_annotation"] = [r for r in rows if "0061" not in r["sample_token"]]

    dataset = _write(tmp_path, clear_one) | {"split": ["scene-0061"]}
    with pytest.raises(InputError, match="of 0 annotations 0 are left; the scenes have none"):
        build_train_loader(dataset, _mapper(), lanes_per_rank=1, num_workers=0)


def test_what_is_left_out_is_logged_once(
    handmade_records: FrameRecords, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        check_boxes(handmade_records, _mapper())
    log = "\n".join(caplog.messages)
    assert log.count("training uses 19 of 32 boxes. 9 are of categories") == 1
    assert log.count("no box to train on of 6 of 10 classes") == 1
    assert "classes: construction_vehicle, bus (4 without points), trailer, barrier" in log


def _spec(change: dict[str, list[str]]):
    classes = [
        dataclasses.replace(c, categories=change[c.name]) if c.name in change else c
        for c in NUSCENES.classes
    ]
    return dataclasses.replace(NUSCENES, classes=classes)


def test_misspelt_categories_are_named(
    handmade_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # "animal" is in the tables, and no class takes it.
    change = {"car": ["vehicle.car", "anmal"], "bus": ["vehicle.buss.rigid"]}
    load_records(handmade_root, VERSION, spec=_spec(change))
    (absent,) = [m for m in caplog.messages if "class 'bus'" in m]
    assert "no category of class 'bus' (vehicle.buss.rigid): there will be no such box" in absent
    assert absent.endswith("nearest there: vehicle.bus.rigid")
    (misspelt,) = [m for m in caplog.messages if "misspelt" in m]
    assert "no category 'anmal', which class 'car' takes, but animal" in misspelt


def test_categories_that_a_class_may_lack_are_no_warning(
    handmade_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_records(handmade_root, VERSION)  # has vehicle.bus.rigid and no vehicle.bus.bendy
    assert "bendy" not in caplog.text
    # "animal" is in the tables, and is not near enough.
    load_records(handmade_root, VERSION, spec=_spec({"car": ["vehicle.car", "animal.dog"]}))
    assert "animal" not in caplog.text


def test_class_names_2d_are_checked_before_training(handmade_root: Path) -> None:
    dataset = {"root": str(handmade_root), "version": VERSION}

    def build(names: object) -> None:
        mapper = _mapper(boxes2d=True, class_names_2d=names)
        build_train_loader(dataset, mapper, lanes_per_rank=1, num_workers=0)

    build(None)
    build(CONVERTER_CLASS_NAMES)
    names = NUSCENES.class_names
    for wrong, reason in (
        (("cars", *names[1:]), "unknown are cars, nearest to them car.*, absent are car"),
        (names[1:], "absent are car"),
        ((*names, "car"), "a name is there twice"),
    ):
        with pytest.raises(InputError, match=f"class_names_2d must have each class.*{reason}"):
            build(wrong)


@pytest.mark.parametrize(
    ("resize_range", "advice"),
    [
        ((0.25, 0.25), None),
        ((0.235, 0.3125), None),  # the published 0.94 to 1.25 of it
        ((0.2, 0.22), None),  # within the slack
        ((1.0, 1.0), "[0.25,0.25]"),  # forgotten: a cut-out of the whole picture
        ((0.47, 0.625), "[0.235,0.3125]"),
        ((0.1, 0.15), "[0.235,0.3125]"),
    ],
)
def test_a_range_that_does_not_fit_the_pictures(
    handmade_records: FrameRecords,
    caplog: pytest.LogCaptureFixture,
    resize_range: tuple[float, float],
    advice: str | None,
) -> None:
    check_resize_range(handmade_records, ImageAugmentation((16, 40), resize_range))
    if advice is None:
        assert caplog.messages == []
        return
    (message,) = caplog.messages
    assert "does not fit pictures of 160x90 (CAM_FRONT) at an input of 40x16" in message
    assert message.endswith(f"image_aug.resize_range={advice}")


def test_training_warns_of_such_a_range(
    handmade_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mapper = NuScenesMapper(training=True, image_aug=ImageAugmentation((16, 40), (1.0, 1.0)))
    dataset = {"root": str(handmade_root), "version": VERSION}
    build_train_loader(dataset, mapper, lanes_per_rank=1, num_workers=0)
    assert "training sees objects 4 times as large" in caplog.text
