"""Objects in the frames of a tilted vehicle and of a far world, and how they are chosen."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.structures import Detections, Objects, Pose


def pose(place: Any, angles: Any) -> Pose:
    x, y, z, w = Rotation.from_euler("xyz", angles).as_quat()
    made = Pose(np.array(place, float), np.array([w, x, y, z]))
    for array in (made.translation_m, made.rotation_wxyz):
        array.setflags(write=False)  # as those of a rig are
    return made


REFERENCE = pose((1.2, 0.3, 1.5), (0.2, -0.1, 0.4))
VEHICLE = pose((500_000.25, 5.4e6, 120), (0.13, -0.15, 1.1))


def make_objects(count: int = 6) -> Objects:
    torch.manual_seed(0)
    boxes = torch.randn(count, 9) * 20
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.1
    scores = torch.rand(count).sort(descending=True).values
    found = Detections(boxes, scores, torch.arange(count) % 10)
    return Objects.of(found, REFERENCE, VEHICLE, NUSCENES, timestamp_s=3.0, cameras=["front"])


@pytest.mark.parametrize("frame", ["vehicle", "world"])
def test_frames_are_products_of_matrices(frame: str) -> None:
    objects = make_objects().to(frame)
    boxes = objects.detections.boxes.double().numpy()
    matrix = REFERENCE.matrix() if frame == "vehicle" else VEHICLE.matrix() @ REFERENCE.matrix()
    points = np.concatenate((boxes[:, :3], np.ones((6, 1))), axis=1)
    np.testing.assert_allclose(objects.centers, (points @ matrix.T)[:, :3], rtol=0, atol=1e-8)
    ahead = np.stack((np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), np.zeros(6)), axis=1)
    ahead = ahead @ matrix[:3, :3].T
    np.testing.assert_allclose(objects.yaws, np.arctan2(ahead[:, 1], ahead[:, 0]), atol=1e-12)
    fast = np.concatenate((boxes[:, 7:], np.zeros((6, 1))), axis=1) @ matrix[:3, :3].T
    np.testing.assert_allclose(objects.velocities, fast[:, :2], atol=1e-12)


@pytest.mark.parametrize(
    ("chosen", "rows"),
    [
        (slice(None, None, -1), [5, 4, 3, 2, 1, 0]),
        (-1, [5]),
        (torch.tensor([True, False, True, False, False, False]), [0, 2]),
        (np.array([], dtype=int), []),
        (np.where(np.arange(6) > 3), [4, 5]),
    ],
    ids=["reversed", "last", "torch", "nothing", "where"],
)
def test_objects_are_chosen_as_numpy_does(chosen: Any, rows: list[int]) -> None:
    objects = make_objects()
    some = objects[chosen]
    np.testing.assert_array_equal(some.scores, objects.scores[rows])
    np.testing.assert_array_equal(some.to("world").centers, objects.to("world").centers[rows])


@pytest.mark.parametrize("chosen", [None, [[0, 1]], True], ids=["None", "table", "True"])
def test_another_axis_is_refused(chosen: Any) -> None:
    with pytest.raises(InputError, match="objects cannot be chosen by"):
        make_objects()[chosen]


def test_iteration_ends_and_no_object_is_a_result() -> None:
    objects = make_objects()
    assert [entry.scores[0] for entry in objects] == objects.scores.tolist()
    nothing = pickle.loads(pickle.dumps(objects[[]]))
    assert len(nothing) == 0 and nothing.to("world").centers.shape == (0, 3)
    assert nothing.to_nuscenes("token") == []
