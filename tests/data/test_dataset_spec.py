"""A data set of own classes: labels by name everywhere, one cache, and what a spec refuses."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import handmade_tables
import numpy as np
import pytest
import yaml
from detectron2.config import LazyCall, instantiate
from omegaconf import OmegaConf

from streampetr_vit.data.checks import summarise
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.data.projected_boxes import boxes2d_of_record
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.structures import DatasetSpec, ObjectClass

# Two classes in an order that is not nuScenes'; cones, buses and dogs are of none.
OWN = dataclasses.replace(
    NUSCENES,
    classes=(
        ObjectClass("person", ["human.pedestrian.adult"], 30.0, scored_as="pedestrian"),
        ObjectClass("vehicle", ["vehicle.car", "vehicle.truck"], scored_as="car"),
    ),
)
OWN_LABEL = {"car": 1, "walker": 0, "truck_gap": 1}  # by track of the handmade set
FIXED = ImageAugmentation((32, 80), (0.5, 0.5), flip_probability=0.0)


@pytest.fixture(scope="module")
def own_records(handmade_root: Path) -> FrameRecords:
    return load_records(handmade_root, handmade_tables.VERSION, spec=OWN)


def _tracks(token: str) -> list[str]:
    """Of each box of a frame its track, in the order of the tables."""
    rows = handmade_tables.make_tables()["sample_annotation"]
    names = [row["instance_token"] for row in rows if row["sample_token"] == token]
    return [name.split("-")[-1] for name in names]


def test_labels_of_records_follow_the_names(own_records: FrameRecords) -> None:
    for record in own_records:
        expected = [OWN_LABEL.get(track, -1) for track in _tracks(record.token)]
        assert record.gt_labels.tolist() == expected
        assert record.spec is OWN


def test_labels_of_samples_follow_the_names(own_records: FrameRecords) -> None:
    everywhere = (-1e3, -1e3, -1e3, 1e3, 1e3, 1e3)
    mapper = NuScenesMapper(training=True, image_aug=FIXED, point_cloud_range=everywhere)
    for record in own_records:
        labels = [OWN_LABEL[track] for track in _tracks(record.token) if track in OWN_LABEL]
        sample = mapper(record, rng=np.random.default_rng(0))
        assert sample.gt_labels.tolist() == labels
        assert len(sample.gt_boxes) == len(labels)


def test_labels_of_2d_boxes_follow_the_names(
    own_records: FrameRecords, handmade_records: FrameRecords
) -> None:
    """The 2D boxes are those of nuScenes' classes that the own classes take."""
    official = {"car": "vehicle", "truck": "vehicle", "pedestrian": "person"}
    seen = set()
    for own, record in zip(own_records, handmade_records, strict=True):
        pairs = zip(boxes2d_of_record(own), boxes2d_of_record(record), strict=True)
        for boxes, whole in pairs:
            names = [NUSCENES.class_names[label] for label in whole.labels]
            kept = [place for place, name in enumerate(names) if name in official]
            labels = [OWN.class_names.index(official[names[place]]) for place in kept]
            assert boxes.labels.tolist() == labels
            assert boxes.corners.tolist() == whole.corners[kept].tolist()
            seen.update(labels)
        swapped = boxes2d_of_record(own, ("vehicle", "person"))
        for boxes, other in zip(boxes2d_of_record(own), swapped, strict=True):
            assert (1 - boxes.labels).tolist() == other.labels.tolist()
    assert seen == {0, 1}


def test_counts_follow_the_names(own_records: FrameRecords) -> None:
    tracks = [track for record in own_records for track in _tracks(record.token)]
    counts = {"person": 0, "vehicle": 0, "other": 0}
    for track in tracks:
        counts["other" if track not in OWN_LABEL else OWN.class_names[OWN_LABEL[track]]] += 1
    assert own_records.boxes_per_class().tolist() == list(counts.values())
    assert summarise(own_records).boxes == counts
    assert min(counts.values()) > 0


def test_specs_of_other_classes_share_a_cache(
    own_records: FrameRecords, handmade_records: FrameRecords
) -> None:
    assert own_records.path == handmade_records.path
    assert own_records[0].gt_labels.tolist() != handmade_records[0].gt_labels.tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"cameras": NUSCENES.cameras[:4]},
        {"cameras": NUSCENES.cameras[::-1]},
        {"lidar": None, "lidar_to_ego": [0, 0, 0, 1, 0, 0, 0]},
        {"lidar": None, "lidar_to_ego": [0, 0, 1, 1, 0, 0, 0]},
        {"lidar": "RADAR_FRONT"},
    ],
    ids=["fewer", "reordered", "vehicle frame", "higher frame", "other lidar"],
)
def test_specs_of_other_sensors_do_not_share_a_cache(tmp_path: Path, change: dict) -> None:
    root = handmade_tables.write_tables(handmade_tables.make_tables(), tmp_path)
    before = load_records(root, handmade_tables.VERSION)
    spec = dataclasses.replace(NUSCENES, **change)
    after = load_records(root, handmade_tables.VERSION, spec=spec)
    assert after.path != before.path
    assert len(after[0].camera_paths) == len(spec.cameras)
    for path, camera in zip(after[0].camera_paths, spec.cameras, strict=True):
        assert path.split("/")[1] == camera
    # And the first one is still there, unchanged.
    again = load_records(root, handmade_tables.VERSION)
    assert again.path == before.path and again[0].camera_paths == before[0].camera_paths


def test_no_category_of_the_data_set(handmade_root: Path) -> None:
    spec = dataclasses.replace(NUSCENES, classes=[ObjectClass("boat", ["ship.sail", "ship.row"])])
    message = (
        r"category.json has no category of dataset_spec.classes: it has animal, .*vehicle.truck; "
        r"the classes take ship.sail, ship.row.*dataset_spec.classes"
    )
    with pytest.raises(ValueError, match=message):
        load_records(handmade_root, handmade_tables.VERSION, spec=spec)


def test_a_class_without_a_box_is_named(
    handmade_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classes = [*OWN.classes, ObjectClass("boat", ["ship.sail"])]
    with caplog.at_level(logging.WARNING):
        load_records(
            handmade_root,
            handmade_tables.VERSION,
            spec=dataclasses.replace(NUSCENES, classes=classes),
        )
    assert "no category of class 'boat' (ship.sail)" in caplog.text
    assert "vehicle" not in caplog.text


CAR = ObjectClass("car", ["vehicle.car"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": []}, "dataset_spec.classes: there are none"),
        ({"classes": [CAR, ObjectClass("car", ["a"])]}, r"classes: \['car'\] more than once"),
        (
            {"classes": [CAR, ObjectClass("van", ["vehicle.car"])]},
            r"categories of dataset_spec.classes: \['vehicle.car'\] more than once",
        ),
        ({"cameras": []}, "dataset_spec.cameras: there are none"),
        ({"cameras": ["FRONT", "FRONT"]}, r"dataset_spec.cameras: \['FRONT'\] more than once"),
        ({"lidar": None}, "lidar=None and lidar_to_ego="),
        ({"lidar_to_ego": [0, 0, 0, 1, 0, 0, 0]}, "lidar=None and lidar_to_ego="),
        ({"lidar": None, "lidar_to_ego": [0, 0, 0, 1, 0, 0]}, "unit quaternion w, x, y, z"),
        ({"lidar": None, "lidar_to_ego": [0, 0, 0, 0, 0, 0, 0]}, "unit quaternion w, x, y, z"),
        ({"lidar": None, "lidar_to_ego": [0, 0, 0, 1, 1, 0, 0]}, "unit quaternion w, x, y, z"),
        ({"lidar": None, "lidar_to_ego": [0, 0, 0, np.nan, 0, 0, 0]}, "unit quaternion"),
        ({"lidar": None, "lidar_to_ego": [np.inf, 0, 0, 1, 0, 0, 0]}, "unit quaternion"),
        ({"classes": [{"name": "car"}]}, "has name: it needs name and categories"),
        (
            {"classes": [{"name": "car", "categories": ["a"], "colour": "red"}]},
            "has name, categories, colour: it needs .* may have range_m, attributes, scored_as",
        ),
        ({"classes": [{"name": "car", "categories": []}]}, "class 'car' takes no category"),
    ],
)
def test_a_spec_refuses(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetSpec(**{"classes": [CAR], "cameras": ["FRONT"], **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"categories": "vehicle.car"}, "categories must be a list, not 'vehicle.car'"),
        ({"attributes": "moving"}, "attributes must be a list"),
        ({"attributes": ["moving"]}, r"attributes must be two names.*\['moving'\]"),
        ({"range_m": 0.0}, "range_m must be a number above 0, not 0.0"),
    ],
)
def test_a_class_refuses(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"class 'car': {message}"):
        ObjectClass(**{"name": "car", "categories": ["a"], **values})


@pytest.mark.parametrize(
    "spec",
    [
        NUSCENES,
        OWN,
        DatasetSpec([CAR], ["FRONT"], None, [0.94, 0, 1.84, 0.7071068, 0, 0, -0.7071068], 0.5),
    ],
    ids=["nuScenes", "own classes", "no lidar"],
)
def test_the_plain_form_makes_the_value_again(spec: DatasetSpec) -> None:
    described = spec.plain()
    assert DatasetSpec(**described) == spec
    assert DatasetSpec(**yaml.safe_load(yaml.safe_dump(described))) == spec
    config = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(described)))
    assert DatasetSpec(**config) == spec
    lazy = OmegaConf.create({"dataset_spec": LazyCall(DatasetSpec)(**described)})
    assert instantiate(lazy.dataset_spec) == spec
    assert repr(instantiate(lazy.dataset_spec)) == repr(spec)  # the default name hashes it


def test_attributes_follow_the_speed() -> None:
    spec = dataclasses.replace(NUSCENES, moving_speed_mps=1.0)
    car = spec.class_names.index("car")
    assert [spec.attribute(car, speed) for speed in (1.0, 1.1)] == [
        "vehicle.parked",
        "vehicle.moving",
    ]
    assert spec.attribute(spec.class_names.index("barrier"), 5.0) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": "CAM_FRONT"}, "dataset_spec.cameras must be a list, not 'CAM_FRONT'"),
        ({"classes": "car"}, "dataset_spec.classes must be a list, not 'car'"),
        ({"classes": ["car"]}, "dataset_spec.classes has 'car': each class is a dict with name"),
    ],
)
def test_a_text_is_no_list(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(NUSCENES, **change)


@pytest.mark.parametrize("range_m", ["50", 0, -1.0, float("nan"), None])
def test_a_range_is_a_number_above_0(range_m: object) -> None:
    with pytest.raises(ValueError, match="class 'car': range_m must be a number above 0, not"):
        ObjectClass("car", ["vehicle.car"], range_m=range_m)
