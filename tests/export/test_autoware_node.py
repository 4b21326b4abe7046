"""The node that accepts exported graphs: right ones pass it, and each kind of wrong one does not.

The graphs are stand-ins made of the detector itself, so this needs no export.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from autoware_drive import (
    LENGTH,
    REFERENCE,
    StandIn,
    drive,
    make_frames,
    spread_queries,
)
from autoware_node import Arrays, Dims, Expected, PyTorch
from numpy.typing import NDArray
from tiny_detector import HEIGHT, WIDTH, make_detector

from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Frame

TOLERANCE = 1e-4
TO_NODE = {"lidar": np.eye(4), "base_link": REFERENCE.matrix()}
FRAMES = pytest.mark.parametrize("frame", TO_NODE)
DIMS = Dims(N=6, H=HEIGHT, W=WIDTH, E=32, P=12, R=18, Q=26, K=10)


@pytest.fixture(scope="module")
def detector() -> StreamPETR:
    sizes = dict(num_queries=20, num_propagated=6, memory_length=12, num_remembered=6)
    detector = make_detector(**sizes).eval()
    spread_queries(detector)
    return detector


@pytest.fixture(scope="module")
def scene(tiny_nuscenes: Path) -> list[Frame]:
    return make_frames(tiny_nuscenes, ImageAugmentation((HEIGHT, WIDTH), (0.16, 0.16)))


@FRAMES
def test_right_graphs_pass(frame: str, detector: StreamPETR, scene: list[Frame]) -> None:
    graphs = StandIn(detector, TO_NODE[frame])
    steps = drive(graphs, detector, DIMS, scene, TO_NODE[frame])
    assert len(steps) == LENGTH
    assert max(step.worst() for step in steps) < TOLERANCE


class AlwaysContinues(StandIn):
    """Takes zeros as a memory, as other producers' graphs do."""

    def continues(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.tensor([True])


class NeverContinues(StandIn):
    def continues(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.tensor([False])


class StartsByProducts(StandIn):
    """Multiplies with the flag, where the ages may be NaN."""

    def memory(self, given: dict[str, torch.Tensor]) -> Any:
        self.age = given["pre_memory_timestamp"] * self.continues(given)
        return super().memory(given)

    def head(self, **inputs: NDArray[np.float32]) -> Arrays:
        outputs = super().head(**inputs)
        new = outputs["post_memory_timestamp"].shape[1] - self.age.shape[1]
        outputs["post_memory_timestamp"][:, new:] = self.age.numpy()
        return outputs


class NoAges(StandIn):
    def memory(self, given: dict[str, torch.Tensor]) -> Any:
        zeros = torch.zeros_like(given["pre_memory_timestamp"])
        return super().memory({**given, "pre_memory_timestamp": zeros})


class Changed(StandIn):
    """Changes one output of the head."""

    name = ""

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        raise NotImplementedError

    def head(self, **inputs: NDArray[np.float32]) -> Arrays:
        outputs = super().head(**inputs)
        return {**outputs, self.name: self.change(outputs[self.name])}


class NegativeAges(Changed):
    name = "post_memory_timestamp"

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        return -value


class NewEntriesHaveAnAge(Changed):
    name = "post_memory_timestamp"

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        return value + np.float32(0.001)


class QueriesFirst(Changed):
    name = "all_cls_scores"

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ascontiguousarray(value.transpose(0, 2, 1))


class Probabilities(Changed):
    name = "all_cls_scores"

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        return 1 / (1 + np.exp(-value))


class WidthFirst(Changed):
    name = "all_bbox_preds"

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        return value[:, [0, 1, 2, 4, 3, 5, 6, 7, 8, 9]]


class CosineFirst(Changed):
    name = "all_bbox_preds"

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        return value[:, [0, 1, 2, 3, 4, 5, 7, 6, 8, 9]]


class AllLayers(Changed):
    name = "all_cls_scores"

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.tile(value, (1, 1, 3))


class NotRotated(Changed):
    """Centres move to the node's frame and headings do not."""

    name = "all_bbox_preds"

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        yaw = -np.arctan2(*self.to_node[[1, 0], 0].numpy())
        value = value.copy()
        sine, cosine = value[:, 6].copy(), value[:, 7].copy()
        value[:, 6] = np.sin(yaw) * cosine + np.cos(yaw) * sine
        value[:, 7] = np.cos(yaw) * cosine - np.sin(yaw) * sine
        return value


class OldestFirst(StandIn):
    def memory_after(self, memory: Any) -> Arrays:
        return {k: v[:, ::-1].copy() for k, v in super().memory_after(memory).items()}


class TwoNewEntriesSwapped(StandIn):
    def memory_after(self, memory: Any) -> Arrays:
        rows = np.arange(memory.embedding.shape[1])
        rows[[0, 4]] = 4, 0
        return {k: v[:, rows] for k, v in super().memory_after(memory).items()}


class TwoOldEntriesSwapped(StandIn):
    def memory_after(self, memory: Any) -> Arrays:
        rows = np.arange(memory.embedding.shape[1])
        rows[[8, 9]] = 9, 8
        return {k: v[:, rows] for k, v in super().memory_after(memory).items()}


class PosesStay(Changed):
    """Entries keep their own frame's place as identity."""

    name = "post_memory_egopose"

    def change(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        value = value.copy()
        value[:, :4] = np.eye(4)
        return value


class Still(StandIn):
    """A head that does not look at the pose: everything is remembered where the car is."""

    def head(self, **inputs: NDArray[np.float32]) -> Arrays:
        same = np.eye(4, dtype=np.float32)[None]
        return super().head(**{**inputs, "data_ego_pose": same, "data_ego_pose_inv": same})


class NotInverse(StandIn):
    """The two poses are taken for each other."""

    def head(self, **inputs: NDArray[np.float32]) -> Arrays:
        one, other = inputs["data_ego_pose"], inputs["data_ego_pose_inv"]
        return super().head(**{**inputs, "data_ego_pose": other, "data_ego_pose_inv": one})


class BgrPictures(StandIn):
    def backbone(self, img: NDArray[np.float32]) -> Arrays:
        return {"img_feats": np.ascontiguousarray(img[:, :, ::-1])}


class CamerasMixed(StandIn):
    def backbone(self, img: NDArray[np.float32]) -> Arrays:
        return {"img_feats": np.ascontiguousarray(img[:, [1, 0, 2, 3, 4, 5]])}


class PositionInLidar(StandIn):
    """M is missing in the position embedding."""

    def position(self, **inputs: NDArray[np.float32]) -> Arrays:
        return {"pos_embed": inputs["img2lidar"], "cone": inputs["intrinsics"]}


class HeadInLidar(StandIn):
    """M is missing in the head."""

    def head(self, **inputs: NDArray[np.float32]) -> Arrays:
        plain = StandIn(self.detector, np.eye(4))
        outputs = plain.head(**inputs)
        codes = torch.from_numpy(outputs["all_bbox_preds"]).mT
        return {**outputs, "all_bbox_preds": self.codes(codes).mT.numpy()}


class BoxesInLidar(StandIn):
    """M is missing in the boxes."""

    def codes(self, codes: torch.Tensor) -> torch.Tensor:
        return codes


WRONG = [
    AlwaysContinues,
    NeverContinues,
    StartsByProducts,
    NoAges,
    NegativeAges,
    NewEntriesHaveAnAge,
    QueriesFirst,
    Probabilities,
    WidthFirst,
    CosineFirst,
    AllLayers,
    OldestFirst,
    TwoNewEntriesSwapped,
    TwoOldEntriesSwapped,
    PosesStay,
    Still,
    NotInverse,
    BgrPictures,
    CamerasMixed,
]
WRONG_ON_A_VEHICLE = [NotRotated, PositionInLidar, HeadInLidar, BoxesInLidar]


@pytest.mark.parametrize("wrong", [*WRONG, *WRONG_ON_A_VEHICLE], ids=lambda kind: kind.__name__)
def test_wrong_graphs_do_not_pass(
    wrong: type[StandIn], detector: StreamPETR, scene: list[Frame]
) -> None:
    to_node = TO_NODE["base_link" if wrong in WRONG_ON_A_VEHICLE else "lidar"]
    steps = drive(wrong(detector, to_node), detector, DIMS, scene[:2], to_node)
    assert steps[-1].worst() > 10 * TOLERANCE


class OneTieSwapped(StandIn):
    """Two queries with one score, in the other order."""

    def memory_after(self, memory: Any) -> Arrays:
        rows = np.arange(memory.embedding.shape[1])
        rows[[3, 4]] = 4, 3
        return {k: v[:, rows] for k, v in super().memory_after(memory).items()}


@pytest.mark.parametrize("gap", [0.0, 1e-3])
def test_entries_may_swap_where_their_scores_tie(
    gap: float,
    detector: StreamPETR,
    scene: list[Frame],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And PyTorch then goes on in the same order: the next frame's queries follow it."""
    call = PyTorch.__call__

    def with_a_tie(self: PyTorch, frame: Frame) -> Expected:
        expected = call(self, frame)
        expected.scores[4] = expected.scores[3] - gap
        return expected

    monkeypatch.setattr(PyTorch, "__call__", with_a_tie)
    graphs = OneTieSwapped(detector, np.eye(4))
    steps = drive(graphs, detector, DIMS, scene, np.eye(4))
    if gap:
        assert all(step.misplaced for step in steps)
    else:
        assert max(step.worst() for step in steps) < TOLERANCE


def test_a_swap_that_moves_only_some_tensors_is_found(
    detector: StreamPETR, scene: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = OneTieSwapped(detector, np.eye(4))
    whole = graphs.head

    def mixed(**inputs: NDArray[np.float32]) -> Arrays:
        outputs = whole(**inputs)
        outputs["post_memory_velo"][:, [3, 4]] = outputs["post_memory_velo"][:, [4, 3]]
        return outputs

    monkeypatch.setattr(graphs, "head", mixed)
    steps = drive(graphs, detector, DIMS, scene[:1], np.eye(4))
    assert steps[0].differences["post_memory_velo"] > 10 * TOLERANCE
