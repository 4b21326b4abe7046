"""Ids of a predictor's objects: they travel in its memory, and change nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from tiny_car import make_moment, make_predictor
from tiny_detector import make_detector, make_repdetr3d, make_sample, same
from tracking_by_query import QueryTracker

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.inference import Objects, Predictor, Stream
from streampetr_vit.modeling.temporal.memory import NO_LINEAGE
from streampetr_vit.structures import Pose
from streampetr_vit.tracking.lineage import LineageRules

both_heads = pytest.mark.parametrize("make", [make_detector, make_repdetr3d])
TIMES = [0.5 * n for n in range(6)]


def tracked(make: Callable[[], Any] = make_detector, **options: Any) -> Predictor:
    return make_predictor(make().eval(), tracker=QueryTracker(NUSCENES), **options)


def play(predictor: Predictor, times: Sequence[float] = TIMES) -> list[Objects]:
    return [predictor.predict_batch([make_moment(time)])[0] for time in times]


def lineage(predictor: Predictor) -> torch.Tensor:
    (memory,) = predictor._memories
    return memory.lineage[0]


@both_heads
def test_detections_are_bit_equal_with_and_without_a_tracker(make: Callable[[], Any]) -> None:
    with_ids, without = play(tracked(make)), play(make_predictor(make().eval()))
    for one, other in zip(with_ids, without, strict=True):
        assert same(one.detections.boxes, other.detections.boxes)
        assert same(one.detections.scores, other.detections.scores)
        assert one.tracks is not None and other.tracks is None
        assert (other.ids == -1).all() and len(other.ids) == len(other)
    assert max(objects.ids.max() for objects in with_ids) > 8


@both_heads
def test_a_propagated_query_has_the_id_of_its_entry_of_the_memory(make: Callable[[], Any]) -> None:
    predictor = tracked(make)
    head = predictor.loaded.detector.head
    learned = head.num_queries
    play(predictor, TIMES[:1])
    before, seen = lineage(predictor).clone(), 0
    for time in TIMES[1:]:
        (objects,) = predictor.predict_batch([make_moment(time)])
        for query, id_ in zip(objects.detections.queries.tolist(), objects.ids, strict=True):
            if query >= learned and id_ >= 0 and before[query - learned] >= 0:
                assert id_ == before[query - learned]
                seen += 1
        before = lineage(predictor).clone()
    assert seen > 10


def test_ids_are_in_the_newest_entries_of_the_memory() -> None:
    predictor = tracked()
    (objects,) = play(predictor, TIMES[:1])
    kept = predictor.loaded.detector.head.num_remembered
    newest = lineage(predictor)[:kept]
    assert set(newest[newest >= 0].tolist()) <= set(objects.ids.tolist())
    assert (newest >= 0).sum() > 2
    assert (lineage(predictor)[kept:] == NO_LINEAGE).all()


def test_moments_that_are_not_remembered_name_nothing() -> None:
    predictor = tracked()
    play(predictor, [0.0])
    before = lineage(predictor).clone()
    (objects,) = play(predictor, [0.1])
    assert torch.equal(lineage(predictor), before) and (objects.ids >= 0).any()


def test_no_id_is_given_twice_before_a_reset() -> None:
    predictor = tracked()
    first = play(predictor, [0.0, 0.5])
    after_gap = play(predictor, [100.0])  # a scene begins
    assert after_gap[0].starts_scene
    highest = max(objects.ids.max() for objects in first)
    assert after_gap[0].ids[after_gap[0].ids >= 0].min() > highest
    both = predictor.predict_batch([make_moment(100.5), make_moment(100.5, seed=3)])
    assert both[0].ids.max() > 0 and both[0].ids[both[0].ids >= 0].min() > after_gap[0].ids.max()
    predictor.reset()
    (again,) = play(predictor, [0.0])
    assert np.array_equal(again.ids, first[0].ids)


def test_ids_go_on_from_a_saved_state(tmp_path: Path) -> None:
    expected = play(tracked())
    first, second = tracked(), tracked()
    play(first, TIMES[:3])
    first.save_state(tmp_path / "state")
    second.load_state(tmp_path / "state")
    for one, other in zip(play(second, TIMES[3:]), expected[3:], strict=True):
        assert same(one.detections, other.detections)
        assert np.array_equal(one.ids, other.ids)


def test_ids_of_a_tracker_that_is_no_longer_there_are_forgotten(tmp_path: Path) -> None:
    first, without, again = tracked(), make_predictor(make_detector().eval()), tracked()
    play(first, TIMES[:2])
    assert (lineage(first) >= 0).any()
    first.save_state(tmp_path / "state")
    without.load_state(tmp_path / "state")
    play(without, TIMES[2:3])
    without.save_state(tmp_path / "state")
    again.load_state(tmp_path / "state")
    assert (lineage(again) == NO_LINEAGE).all()


@pytest.mark.parametrize(
    ("name", "place", "value", "reason"),
    [
        ("tracks.ids.0", 0, -7.0, "ids are not different ones"),
        ("tracks.ids.0", slice(None), 1.0, "ids are not different ones"),
        ("tracks.0", 0, 1.0, "ids are not different ones"),
        ("tracks.0", 1, 2e9, "the tracks are of 2000000000.0 s, and the car of 1500000000.5 s"),
    ],
)
def test_tracks_of_a_state_that_cannot_be_are_refused(
    name: str, place: Any, value: float, reason: str, tmp_path: Path
) -> None:
    rules = LineageRules(min_score=0.0, min_new_score=0.0)
    first = make_predictor(tracker=rules)
    play(first, TIMES[:2])
    first.save_state(tmp_path / "state")
    tensors = load_file(tmp_path / "state")
    tensors[name][place] = value
    (tmp_path / "state").write_bytes(save(tensors, {"identity": ""}))
    with pytest.raises(InputError, match=f"{reason}.*remove it and begin anew"):
        make_predictor(tracker=rules).load_state(tmp_path / "state")


def test_a_state_of_an_older_version_goes_on_without_ids(tmp_path: Path) -> None:
    first, second = make_predictor(make_detector().eval()), tracked()
    play(first, TIMES[:2])
    first.save_state(tmp_path / "state")
    with safe_open(tmp_path / "state", "pt") as file:
        names = [name for name in file.keys() if "lineage" not in name]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
        metadata = file.metadata()
    save_file(tensors, tmp_path / "state", metadata)
    second.load_state(tmp_path / "state")
    (one,), (other,) = play(second, TIMES[2:3]), play(first, TIMES[2:3])
    assert same(one.detections, other.detections) and one.ids.max() > 0


def test_each_of_two_cars_has_its_own_ids() -> None:
    together = tracked()
    pairs = [
        together.predict_batch([make_moment(time), make_moment(time, seed=5)]) for time in TIMES
    ]
    for row, seed in enumerate((0, 5)):
        alone = tracked()
        for time, pair in zip(TIMES, pairs, strict=True):
            (expected,) = alone.predict_batch([make_moment(time, seed=seed)])
            assert np.array_equal(pair[row].ids, expected.ids)


def test_a_failing_moment_changes_no_table() -> None:
    predictor, expected = tracked(), tracked()
    play(predictor, TIMES[:2])
    play(expected, TIMES[:2])
    with pytest.raises(InputError):
        predictor.predict_batch([make_moment(1.0, vehicle_to_world=np.full((4, 4), np.nan))])
    assert np.array_equal(play(predictor, [1.0])[0].ids, play(expected, [1.0])[0].ids)


def test_objects_beyond_the_range_of_their_class_have_no_id() -> None:
    for objects in play(tracked()):
        far = np.hypot(*objects.centers[:, :2].T) > 50
        assert (objects.ids[far] == -1).all()


def test_a_detector_without_a_memory_is_tracked_from_moment_to_moment() -> None:
    predictor = tracked(memory=False)
    objects = play(predictor)
    assert all(entry.starts_scene for entry in objects)
    firsts = [entry.ids[entry.ids >= 0].min() for entry in objects]
    assert firsts == sorted(set(firsts))  # the table went on


def make_samples(scene: str, count: int = 4) -> list[Any]:
    pose = Pose(np.zeros(3), np.array([1.0, 0, 0, 0]))
    return [
        replace(make_sample(n), scene_token=scene, lidar_to_ego=pose, ego_to_global=pose)
        for n in range(count)
    ]


def test_a_stream_gives_ids_that_begin_at_1_in_each_scene() -> None:
    detector = make_detector().eval()
    stream, plain = Stream(detector, tracker=QueryTracker(NUSCENES)), Stream(detector)
    for scene in ("one", "two"):
        for n, sample in enumerate(make_samples(scene)):
            (found,) = stream([sample])
            assert same([found.boxes, found.scores], [(e := plain([sample])[0]).boxes, e.scores])
            (tracks,) = stream.tracks
            assert len(tracks) == len(found)
            if n == 0:
                assert tracks.ids[tracks.ids >= 0].min() == 1
    assert plain.tracks == []


def test_a_stream_names_poses_that_a_tracker_misses() -> None:
    detector = make_detector().eval()
    stream, other = (Stream(detector, tracker=QueryTracker(NUSCENES)) for _ in range(2))
    good = make_samples("one")
    for sample in good[:2]:
        broken = replace(sample, ego_to_global=None, sample_token="t1")
        with pytest.raises(InputError, match="sample 't1' has no lidar_to_ego or ego_to_global"):
            stream([broken])
        # The frame counts as if it had not come.
        assert same(stream([sample])[0].boxes, other([sample])[0].boxes)
        assert np.array_equal(stream.tracks[0].ids, other.tracks[0].ids)
