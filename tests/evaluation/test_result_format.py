"""From the lidar frame to result records and back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.evaluation.result_format import (
    detections_from_records,
    read_results,
    to_global_boxes,
    write_results,
)
from streampetr_vit.structures import Detections, Pose

IDENTITY = Pose(np.zeros(3), np.array([1.0, 0, 0, 0]))
# A lidar that leans by about 0.03 rad, and a vehicle on a slope.
TILTED_LIDAR = Pose(np.array([0.94, 0.0, 1.84]), np.array([0.7077, -0.0140, 0.0172, -0.7061]))
ON_A_SLOPE = Pose(np.array([612.5, 1588.0, 0.4]), np.array([0.5721, -0.0031, 0.0113, -0.8201]))
# A quarter turn of the lidar and one of the vehicle.
QUARTER = np.array([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
TURNED_POSES = (
    Pose(np.array([1.0, 0.0, 2.0]), QUARTER),
    Pose(np.array([100.0, 200.0, 0.0]), QUARTER),
)


def _random_detections(count: int = 50) -> Detections:
    generator = torch.Generator().manual_seed(3)
    boxes = torch.rand(count, 9, generator=generator)
    boxes[:, :2] = boxes[:, :2] * 40 - 20
    boxes[:, 3:6] += 0.3
    boxes[:, 6] = boxes[:, 6] * 6 - 3
    labels = torch.randint(0, 10, (count,), generator=generator)
    scores = torch.linspace(0.9, 0.1, count)
    return Detections(boxes, scores, labels)


@pytest.mark.parametrize("poses", [(IDENTITY, IDENTITY), (TILTED_LIDAR, ON_A_SLOPE)])
def test_round_trip(poses: tuple[Pose, Pose]) -> None:
    detections = _random_detections()
    records = to_global_boxes(detections, *poses, "token").records()
    back = detections_from_records(json.loads(json.dumps(records)), *poses)
    assert torch.equal(back.labels, detections.labels)
    torch.testing.assert_close(back.scores, detections.scores)
    torch.testing.assert_close(back.boxes[:, :7], detections.boxes[:, :7], atol=1e-5, rtol=1e-5)
    # Only the horizontal part of a velocity is stored: an error of second order in the tilts.
    torch.testing.assert_close(back.boxes[:, 7:], detections.boxes[:, 7:], atol=4e-3, rtol=0)


def test_closed_form_record() -> None:
    boxes = torch.tensor([[3.0, 4.0, 1.0, 5.0, 2.0, 1.5, 0.5, 1.0, 0.0]])
    detections = Detections(boxes, torch.tensor([0.25]), torch.tensor([0]))
    (record,) = to_global_boxes(detections, *TURNED_POSES, "token").records()
    # Half a turn in all; the lidar's offset is turned by the vehicle only.
    assert record["translation"] == pytest.approx([100 - 3, 200 + 1 - 4, 3.0])
    assert record["size"] == pytest.approx([2.0, 5.0, 1.5])
    assert record["velocity"] == pytest.approx([-1.0, 0.0])
    yaw = math.pi + 0.5
    assert record["rotation"] == pytest.approx([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)])
    assert record["detection_name"] == "car"
    assert record["detection_score"] == 0.25
    assert record["attribute_name"] == "vehicle.moving"


def test_class_range_is_measured_in_the_ego_frame() -> None:
    """A box on the limit stays, one beyond it goes; z does not count."""
    limits = torch.tensor([entry.range_m for entry in NUSCENES.classes])
    boxes = torch.zeros(20, 9)
    boxes[:, 3:6] = 1
    boxes[:, 2] = 100.0
    boxes[:10, 0] = limits - 2
    boxes[10:, 0] = limits - 2 + 0.01
    labels = torch.arange(10).repeat(2)
    lidar_to_ego = Pose(np.array([2.0, 0.0, 0.0]), IDENTITY.rotation_wxyz)
    kept = to_global_boxes(
        Detections(boxes, torch.ones(20), labels), lidar_to_ego, ON_A_SLOPE, "token"
    )
    assert kept.class_names == NUSCENES.class_names


def test_attributes_follow_the_speed() -> None:
    """The speed in the global frame: the lidar here is turned by a quarter."""
    names = ("car", "bus", "pedestrian", "bicycle", "barrier")
    moving = ("vehicle.moving", "vehicle.moving", "pedestrian.moving", "cycle.with_rider", "")
    still = ("vehicle.parked", "vehicle.stopped", "pedestrian.standing", "cycle.without_rider", "")
    labels = torch.tensor([NUSCENES.class_names.index(name) for name in names])
    for speed_mps, expected in ((0.201, moving), (0.199, still)):
        boxes = torch.tensor([[3.0, 4.0, 1.0, 5.0, 2.0, 1.5, 0.5, 0.0, speed_mps]]).repeat(5, 1)
        boxes = to_global_boxes(Detections(boxes, torch.ones(5), labels), *TURNED_POSES, "token")
        assert boxes.attribute_names == expected
    assert tuple(NUSCENES.attribute(label, 0.2) for label in labels) == still


@pytest.mark.parametrize("sign_lidar", [1, -1])
@pytest.mark.parametrize("sign_ego", [1, -1])
def test_quaternion_product_keeps_its_sign(sign_lidar: int, sign_ego: int) -> None:
    """Hamilton products: j * i = -k, and with a half turn about z, -k * k = 1."""
    i, j, k = np.eye(4)[1:]
    lidar_to_ego, ego_to_global = Pose(np.zeros(3), sign_lidar * i), Pose(np.zeros(3), sign_ego * j)
    boxes = torch.tensor([[0, 0, 0, 1, 1, 1, yaw, 0, 0] for yaw in (0.0, math.pi, 3 * math.pi)])
    found = Detections(boxes, torch.ones(3), torch.zeros(3).long())
    turned = to_global_boxes(found, lidar_to_ego, ego_to_global, "token").rotation_wxyz
    one = np.eye(4)[0]
    expected = sign_lidar * sign_ego * np.stack((-k, one, -one))
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_files(tmp_path: Path) -> None:
    samples = [
        to_global_boxes(_random_detections(n), TILTED_LIDAR, ON_A_SLOPE, f"token{n}")
        for n in (5, 0, 3)
    ]
    path = tmp_path / "deep" / "results.json"
    write_results(path, samples)
    results = read_results(path)
    assert list(results) == ["token5", "token0", "token3"]
    assert results["token3"] == samples[2].records()
    assert results["token0"] == []
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results file at"):
        read_results(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text("<!doctype html><html>")
    with pytest.raises(ValueError, match=r"broken\.json is not valid JSON but a web page \(HTML\)"):
        read_results(broken)
    broken.write_text('{"results": {"a": [')
    with pytest.raises(ValueError, match=r"broken\.json is not valid JSON \("):
        read_results(broken)
    broken.write_text("[]")
    with pytest.raises(ValueError, match="no nuScenes results file"):
        read_results(broken)


def test_unknown_class_in_records() -> None:
    with pytest.raises(ValueError, match="detection_name 'tram', which is not among car, truck"):
        detections_from_records([{"detection_name": "tram"}], IDENTITY, IDENTITY)


def test_no_records() -> None:
    assert len(detections_from_records([], IDENTITY, IDENTITY)) == 0
