"""The parameters that Autoware's node reads beside the graphs, and what it cannot run."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from nuscenes_export import INTERFACE, described

from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.export.autoware import check_for_node, detection_range, write_parameters
from streampetr_vit.export.description import Description


def written(folder: Path, description: Description, **interface: Any) -> tuple[dict, str]:
    """The file's model_params, and its text."""
    path = folder / "ml_package_camera_streampetr.param.yaml"
    write_parameters(path, description, replace(INTERFACE, **interface))
    text = path.read_text()
    content = yaml.safe_load(text)
    assert list(content) == ["/**"] and list(content["/**"]) == ["ros__parameters"]
    assert list(content["/**"]["ros__parameters"]) == ["model_params"]
    return content["/**"]["ros__parameters"]["model_params"], text


def test_every_field_of_the_node_is_there(tmp_path: Path) -> None:
    found, text = written(tmp_path, described())
    box = found.pop("detection_range")
    assert found == {
        "class_names": [
            "CAR",
            "TRUCK",
            "CONSTRUCTION_VEHICLE",
            "BUS",
            "TRAILER",
            "BARRIER",
            "MOTORCYCLE",
            "BICYCLE",
            "PEDESTRIAN",
            "TRAFFIC_CONE",
        ],
        "input_image_height": 320,
        "input_image_width": 800,
        "num_proposals": 900,
        "rois_number": 6,
        "pre_memory_length": 1024,
        "post_memory_length": 1280,
    }
    # ROS has no list of whole numbers and others.
    assert len(box) == 6 and all(type(value) is float for value in box)
    said = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert "Recipe streampetr_eva02_l_800x320_24ep, weights model_final.pth" in said
    assert "Frame: base_link" in said and "Cameras 0 to 5: CAM_FRONT, CAM_FRONT_RIGHT," in said
    assert "iou_nms_threshold: 0.0 and circle_nms_dist_threshold: 0.0" in said
    assert "frames 0.5 s apart" in said and "10 values" in said and "use_temporal" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["ml_package_camera_streampetr.param.yaml"]


def test_the_range_is_the_box_around_the_lidars(tmp_path: Path) -> None:
    # By hand: x to the right becomes -y, y forward becomes x, then the lidar's place.
    turned = ((0.0, 1.0, 0.0, 0.94), (-1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.84), (0, 0, 0, 1.0))
    description = described(
        lidar_to_base_link=turned, center_range=(-10.0, -20.0, -5.0, 30.0, 40.0, 3.0)
    )
    # x: -20..40 + 0.94; y: -30..10; z: -5..3 + 1.84; outward to a tenth.
    expected = [-19.1, -30.0, -3.2, 41.0, 10.0, 4.9]
    assert detection_range(description) == pytest.approx(expected, abs=1e-9)
    in_lidar = replace(description, frame="lidar")
    assert detection_range(in_lidar) == [-10.0, -20.0, -5.0, 30.0, 40.0, 3.0]


def test_a_turned_range_holds_every_point_of_the_networks() -> None:
    description = described()
    box = detection_range(description)
    low, high = np.reshape(description.center_range, (2, 3))
    points = np.random.default_rng(0).uniform(low, high, (2000, 3))
    pose = description.lidar_to_base_link_matrix()
    moved = points @ pose[:3, :3].T + pose[:3, 3]
    assert (moved >= box[:3]).all() and (moved <= box[3:]).all()
    # And no more than a tenth beyond what the turn needs.
    widest = (np.abs(pose[:3, :3]) @ (high - low)) + 0.2
    assert (np.subtract(box[3:], box[:3]) <= widest).all()


def test_float32_limits_are_not_pushed_out_a_tenth() -> None:
    limits = tuple(float(np.float32(v)) for v in (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0))
    assert min(limits) < -61.2  # what float32 makes of it
    description = described(frame="lidar", center_range=limits)
    assert detection_range(description) == [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]


def test_a_frame_of_the_lidar_and_frames_that_stand_alone_are_said(tmp_path: Path) -> None:
    _, text = written(tmp_path, described(frame="lidar", remembers=False))
    assert "Frame: lidar, that of the weights: the node needs base_link, export with --auto" in text
    assert "# Set use_temporal: false as well" in text


def test_names_cannot_leave_their_places(tmp_path: Path) -> None:
    # The launch file has $(...) replaced, in comments too; ROS takes a bare NO for false.
    names = described(
        recipe="a\nb: $(env HOME)",
        weights="x\n/**: {}",
        cameras=("a\u2028b", "$(x)"),
        classes=("no", "1", 'traffic "cone"', "straße", "*a", "$(env HOME)"),
    )
    found, text = written(tmp_path, names, cameras=2, classes=6)
    assert found["class_names"] == ["NO", "1", 'TRAFFIC "CONE"', "STRASSE", "*A", "$(ENV HOME)"]
    assert "$(" not in text and text.count("/**") == 1
    assert "class_names: [" in text and '"NO"' in text


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_parameters(tmp_path / "file" / "x.yaml", described(), INTERFACE)


def test_the_node_runs_the_published_recipe(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_for_node(described())
    assert caplog.messages == [
        "Autoware's node publishes CONSTRUCTION_VEHICLE as UNKNOWN",
        "Autoware's node publishes BARRIER, TRAFFIC_CONE as HAZARD",
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        check_for_node(described(classes=("car", "bus")))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(frame="lidar"), r"frame='lidar': .* --frame base_link"),
        (dict(input_format="BGR"), "model.input_format is 'BGR': Autoware's node gives RGB; take"),
        (
            dict(pixel_mean=(103.53, 116.28, 123.675)),
            r"model.pixel_mean is \[103.53, 116.28, 123.675\]: .* or leave out --autoware",
        ),
        (dict(pixel_std=(1.0, 1.0, 1.0)), r"model.pixel_std is \[1.0, 1.0, 1.0\]: "),
    ],
)
def test_what_the_node_would_run_wrongly(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        check_for_node(described(**changes))
    assert len(str(error.value).splitlines()) == 1


def test_the_nodes_numbers_may_be_rounded() -> None:
    mean = tuple(float(np.float32(value)) + math.ulp(100.0) for value in (123.675, 116.28, 103.53))
    check_for_node(described(pixel_mean=mean))


def test_frames_that_stand_alone_need_a_setting_of_the_node(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_for_node(described(remembers=False))
    assert "set use_temporal: false" in caplog.text


def test_rows_that_the_node_keeps(caplog: pytest.LogCaptureFixture) -> None:
    check_for_node(described(), bottom_crop=0.1)
    assert "cuts off 0.1 of the height below; Autoware's node keeps the lowest" in caplog.text
