"""Exported graphs behind a stream give what PyTorch gives, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import FLOAT32, Export
from scipy.spatial.transform import Rotation
from stub_graphs import write_stubs
from tiny_detector import make_sample, same
from torch import Tensor
from tracking_by_query import QueryTracker

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.export.runner import OnnxDetector, taken_queries
from streampetr_vit.export.sessions import Sessions
from streampetr_vit.inference import Stream
from streampetr_vit.inference.frame_step import FrameStep
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Detections, Frame, Pose, Sample, invert_rigid
from streampetr_vit.tracking.building import build_tracker
from streampetr_vit.tracking.greedy import GreedyRules
from streampetr_vit.tracking.lineage import LineageRules

TOLERANCE = 1e-4
FAR = np.array([1e6, -2e6, 300.0])  # metres, as in UTM


Pair = tuple[StreamPETR, OnnxDetector]


def opened(export: Export) -> Pair:
    """A detector, and what was exported of it."""
    return export.detector, OnnxDetector(Sessions.open(export.folder, threads=1))


@pytest.fixture(params=FLOAT32)
def pair(request: pytest.FixtureRequest, exported: Callable[[str], Export]) -> Pair:
    return opened(exported(request.param))


@pytest.fixture
def plain(exported: Callable[[str], Export]) -> Pair:
    """The first of them alone."""
    return opened(exported("lidar"))


def drive(time: int, scene: str = "a", **changes: Any) -> Sample:
    """A moment of a car that drives in a curve, far from the origin of its map."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("zyx", [0.7 + 0.1 * time, 0.02, -0.01]).as_matrix()
    pose[:3, 3] = FAR + [3.1 * time, 2.3 * time, 0.1 * time]
    matrix = torch.from_numpy(pose)
    ego = Pose.of_matrix(pose)
    at_rest = Pose(np.zeros(3), np.array([1.0, 0, 0, 0]))
    poses = dict(lidar_to_global=matrix, global_to_lidar=invert_rigid(matrix))
    poses |= dict(lidar_to_ego=at_rest, ego_to_global=ego)
    return make_sample(time, scene, **(poses | changes))


def assert_same_memory(found: TemporalMemory, expected: TemporalMemory) -> None:
    assert torch.equal(found.lineage, expected.lineage)
    for field in fields(TemporalMemory):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        # No relative tolerance: a place on the map has seven digits before the point.
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)  # dtype and shape too


def assert_same_found(found: Sequence[Detections], expected: Sequence[Detections]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other) > 3
        torch.testing.assert_close(one.boxes, other.boxes, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)
        for name in ("labels", "queries", "lineages"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


# Two streams; the second begins another scene at its third frame, and the first has a pause.
MOMENTS = [
    [drive(0), drive(0, "b", seed=1)],
    [drive(1), drive(1, "b", seed=1)],
    [drive(2), drive(7, "c", seed=1)],
    [drive(5), drive(8, "c", seed=1)],
    [drive(6), drive(9, "c", seed=1)],
]


def test_two_streams_over_a_change_of_scene(pair: Pair) -> None:
    ours, theirs = (Stream(detector) for detector in pair)
    for moment in MOMENTS:
        expected = ours(moment)
        assert_same_found(theirs(moment), expected)
        assert_same_memory(theirs.memory, ours.memory)
    assert max(found.lineages.max() for found in expected) == -1  # no tracker names anything


@pytest.mark.parametrize(
    "rules",
    [
        QueryTracker(NUSCENES),
        build_tracker(LineageRules(min_score=0.0, min_new_score=0.0), NUSCENES),
        build_tracker(GreedyRules(score_threshold=0.05), NUSCENES),
    ],
    ids=["query", "lineage", "greedy"],
)
def test_ids_are_those_of_pytorch(pair: Pair, rules: Any) -> None:
    ours, theirs = (Stream(detector, tracker=rules) for detector in pair)
    highest = 0
    for moment in MOMENTS:
        assert_same_found(theirs(moment), ours(moment))
        for one, other in zip(theirs.tracks, ours.tracks, strict=True):
            assert np.array_equal(one.ids, other.ids)
            highest = max(highest, one.ids.max())
        assert_same_memory(theirs.memory, ours.memory)
    assert highest > 5
    if rules.reads_memory:
        assert (theirs.memory.lineage > 0).sum() > 4


def test_a_stream_that_starts_anew_sees_nothing_of_what_was(plain: Pair) -> None:
    detector, graphs = plain
    used = detector.empty_memory(1)
    broken = replace(used, embedding=used.embedding + torch.nan, pose=used.pose + torch.nan)
    frame = Frame.collate([drive(3, continues=False)])
    expected, after = detector.detect(frame, broken)
    found, memory = graphs.detect(frame, broken, graphs.encode_rig(frame.rig, frame.image_size))
    assert_same_found(found.unpad(), expected.unpad())
    assert_same_memory(memory, after)


def test_a_memory_that_is_turned_off_never_goes_on(plain: Pair) -> None:
    ours, theirs = (Stream(detector, memory=False) for detector in plain)
    for time in range(2):
        assert_same_found(theirs([drive(time)]), ours([drive(time)]))
        assert theirs.memory is None


def test_pictures_may_be_normalised_already(pair: Pair) -> None:
    detector, _ = pair
    sample = drive(0)
    images = sample.images.flip(1) if detector.input_format == "BGR" else sample.images
    normal = (images.float() - detector.pixel_mean) / detector.pixel_std
    before = normal.clone()
    ours, theirs = (Stream(detector) for detector in pair)
    found = theirs([replace(sample, images=normal)])
    assert_same_found(found, ours([sample]))
    assert torch.equal(normal, before)


def test_the_position_graph_runs_once_for_a_rig(
    plain: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, graphs = plain
    runs, run = [], graphs.sessions.position
    note = lambda *arrays: runs.append(1) or run(*arrays)  # noqa: E731
    monkeypatch.setattr(Sessions, "position", lambda self, *arrays: note(*arrays))
    step, memory = FrameStep(graphs), graphs.empty_memory(2)
    for time in range(3):
        frame = Frame.collate([drive(time), drive(time, "b")])
        _, memory = step(frame, memory)
    assert len(runs) == 2  # of two streams
    moved = replace(frame.rig, lidar_to_image=frame.rig.lidar_to_image * 1.001)
    step(replace(frame, rig=moved), memory)
    assert len(runs) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(images=drive(0).images[..., :48]),
            "pictures of this moment are 6 of 32x48 pixels, and .* graphs 6 of 32x64, which is fix",
        ),
        (
            {
                name: getattr(drive(0), name)[:5]
                for name in ("images", "intrinsics", "lidar_to_camera", "lidar_to_image")
            },
            "are 5 of 32x64 .* a moment without one of its cameras needs the detector in PyTorch",
        ),
    ],
    ids=["size", "cameras"],
)
def test_pictures_of_another_rig(plain: Pair, change: dict[str, Tensor], message: str) -> None:
    stream = Stream(plain[1])
    with pytest.raises(InputError, match=message):
        stream([replace(drive(0), **change)])
    assert stream.memory is None
    frame = Frame.collate([replace(drive(0), **change)])
    code = plain[1].encode_rig(Frame.collate([drive(0)]).rig, (32, 64))
    with pytest.raises(InputError, match=message):
        plain[1].detect(frame, plain[1].empty_memory(1), code)


@pytest.mark.parametrize(
    "options", [dict(precision="bf16"), dict(cuda_graph=True), dict(cast=True)], ids=str
)
def test_what_only_pytorch_can_do(plain: Pair, options: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match="exported graphs run as they were exported, not with prec"
    ):
        Stream(plain[1], **options)
    assert Stream(plain[1], None) is not None


def test_numbers_of_a_detector(plain: Pair) -> None:
    detector, graphs = plain
    for name in ("memory_length", "num_frame_queries", "training", "device"):
        assert getattr(graphs, name) == getattr(detector, name)
    assert graphs.max_detections == detector.head.max_detections
    assert same(graphs.empty_memory(3), detector.empty_memory(3))
    # The graphs do not pad: a picture that would need it is refused, not padded.
    assert graphs.padded_size((30, 64)) == (30, 64)


def test_graphs_with_another_memory_are_found_out(tmp_path: Path) -> None:
    """The stubs answer zeros; here their memory says something else than their queries."""
    graphs = OnnxDetector(Sessions.open(write_stubs(tmp_path)))
    sample = drive(0)
    sample = replace(
        sample,
        **{
            name: getattr(sample, name)[:2]
            for name in ("images", "intrinsics", "lidar_to_camera", "lidar_to_image")
        },
    )
    Stream(graphs)([sample])  # zeros are zeros
    run = graphs.sessions.head

    class Other:
        """The sessions, whose memory is of other places."""

        def __getattr__(self, name: str) -> Any:
            return getattr(graphs.sessions, name)

        def head(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
            found = run(**inputs)
            return found | {"post_memory_velo": found["post_memory_velo"] + np.float32(0.5)}

    other = OnnxDetector(Other())  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"entry 0 of the head's memory is 0\.5 \(m, m/s\) from ev"
    ):
        Stream(other)([sample])


QUERIES = torch.arange(20.0).view(1, 4, 5)
SCORES = torch.tensor([[[0.1, 0.5], [2.0, 0.0], [0.0, 0.0], [0.3, 2.0]]])  # 1 and 3 tie


@pytest.mark.parametrize(
    "order", [[1, 3, 0], [3, 1, 0], [1, 3, 2], [0, 1, 2]], ids=["best", "tie", "other", "any"]
)
def test_the_queries_that_a_memory_took(order: list[int]) -> None:
    entries = QUERIES[:, order] + 1e-5  # rounded on the way through a graph
    assert taken_queries(SCORES, QUERIES, entries).tolist() == [order]


def test_queries_in_one_place_are_told_apart_by_their_scores() -> None:
    queries = QUERIES[:, [0, 0, 0, 0]]
    assert taken_queries(SCORES, queries, queries[:, :3])[0, 2] == 0


def test_an_entry_that_was_no_query() -> None:
    entries = QUERIES[:, [1, 3, 0]].clone()
    entries[0, 1, 4] += 0.01
    with pytest.raises(InputError, match=r"entry 1 of the head's memory is 0\.01 \(m, m/s\) from"):
        taken_queries(SCORES, QUERIES, entries)


def test_a_network_without_numbers_is_the_callers_to_notice() -> None:
    nothing = torch.full_like(QUERIES, torch.nan)
    assert taken_queries(SCORES, nothing, nothing[:, :2]).shape == (1, 2)
