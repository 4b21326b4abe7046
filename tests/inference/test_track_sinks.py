"""Ids of objects in the files of a drive, also after a kill; and no ids without a tracker."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drive_folder import write_drive
from played_drive import FakePredictor, Killed, files_in, made_tracks
from test_drawing_sinks import draw, frames_of

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.inference.sinks import ObjectLines, Scene, TrackingResults
from streampetr_vit.inference.sinks.building import check_sinks
from streampetr_vit.inference.sinks.replay_log import ReplayLog
from streampetr_vit.inference.sources import FolderSource
from streampetr_vit.structures import Moment, Objects
from streampetr_vit.structures.tracks import NO_ID, Tracks
from streampetr_vit.tracking.classes import tracked_kinds

SCENE = Scene(0, "a", 9)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    return FolderSource(write_drive(tmp_path_factory.mktemp("drives") / "drive", 3))


def detected(source: FolderSource, tracks: bool = True) -> list[tuple[Moment, Objects]]:
    predictor = FakePredictor(tracks=tracks)
    moments = list(source.frames("drive"))
    return [(m, predictor.detect([predictor.prepare(m)])[0]) for m in moments]


def test_objects_have_id_and_age_where_a_tracker_was_at_work(
    source: FolderSource, tmp_path: Path
) -> None:
    sink = ObjectLines(tmp_path / "a.jsonl", tmp_path)
    for (moment, plain), (_, objects) in zip(
        detected(source, tracks=False), detected(source), strict=True
    ):
        without, line = (json.loads(sink.line(moment, o)) for o in (plain, objects))
        found = line["objects"]
        assert [one.pop("id") for one in found] == [objects.ids[0], None, objects.ids[2]]
        assert [one.pop("age_s") for one in found] == [objects.ages_s[0], None, objects.ages_s[2]]
        assert line == without
        assert json.loads(sink.line(moment, objects[:0]))["objects"] == []


def test_a_line_without_a_tracker_is_that_of_before(source: FolderSource, tmp_path: Path) -> None:
    moment, objects = detected(source, tracks=False)[0]
    one = objects[:1]
    found = {
        "name": str(one.names[0]),
        "score": float(one.scores[0]),
        "center": one.centers[0].tolist(),
        "size": one.sizes[0].tolist(),
        "yaw": float(one.yaws[0]),
        "velocity": one.velocities[0].tolist(),
    }
    wanted = (
        '{"scene": "drive", "frame": "000000", "timestamp_s": 1000000000.0, '
        '"frame_of_reference": "vehicle", "vehicle_to_world": {"translation": [0.0, 1.0, 0.0], '
        '"rotation": [1.0, 0.0, 0.0, 0.0]}, "cameras": ["front", "left"], "starts_scene": true, '
        f'"objects": [{json.dumps(found)}]}}'
    )
    assert ObjectLines(tmp_path / "a.jsonl", tmp_path).line(moment, one) == wanted


def kept(objects: list[Objects], folder: Path) -> tuple[list[Objects], list[Objects], list[str]]:
    """What a log returns when it is written, what it returns later, and its lines."""
    log = ReplayLog(folder, NUSCENES)
    assert list(log.open_scene(SCENE, 0)) == []
    written = [log.write(one) for one in objects]
    log.save()
    log.close()
    (path,) = folder.iterdir()
    again = list(ReplayLog(folder, NUSCENES).open_scene(SCENE, len(objects)))
    return written, again, path.read_text().splitlines()


def assert_same(one: Any, other: Any) -> None:
    """Both are None, or equal to the last bit, of one shape and dtype."""
    if one is None or other is None:
        assert one is other
        return
    one, other = np.asarray(one), np.asarray(other)
    assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@pytest.mark.parametrize("tracks", [True, False])
def test_a_replay_has_the_same_tracks(source: FolderSource, tmp_path: Path, tracks: bool) -> None:
    objects = [one for _, one in detected(source, tracks)]
    numbers = torch.tensor([5, 2**40, 3])
    named = replace(objects[0].detections, queries=numbers, lineages=numbers - 6)
    objects[0] = replace(objects[0], detections=named)
    objects.append(objects[1][:0])
    written, again, lines = kept(objects, tmp_path)
    for line in lines:
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert all(("tracks" in line) == tracks for line in lines)
    for one, *replayed in zip(objects, written, again, strict=True):
        for other in replayed:
            for name in ("boxes", "scores", "labels", "queries", "lineages"):
                assert_same(getattr(one.detections, name), getattr(other.detections, name))
            assert (other.tracks is None) == (not tracks)
            for field in fields(Tracks) if tracks else ():
                assert_same(getattr(one.tracks, field.name), getattr(other.tracks, field.name))


def test_a_log_without_tracks_reads_as_before(source: FolderSource, tmp_path: Path) -> None:
    _, _, lines = kept([detected(source, tracks=False)[0][1]], tmp_path)
    assert list(json.loads(lines[0])) == [
        "timestamp_s",
        "starts_scene",
        "cameras",
        "reference_to_vehicle",
        "vehicle_to_world",
        "width",
        "boxes",
        "scores",
        "labels",
    ]


@pytest.mark.parametrize("broken", ["ids", "trails_m", "trail_length"])
def test_a_log_with_broken_tracks_is_refused(
    source: FolderSource, tmp_path: Path, broken: str
) -> None:
    kept([detected(source)[0][1]], tmp_path)
    (path,) = tmp_path.iterdir()
    values = json.loads(path.read_text())
    del values["tracks"][broken]
    path.write_text(json.dumps(values) + "\n")
    with pytest.raises(Exception, match="a line that this tool has not written"):
        list(ReplayLog(tmp_path, NUSCENES).open_scene(SCENE, 1))


def test_drawings_with_ids_after_a_kill_are_those_of_a_whole_run(tmp_path: Path) -> None:
    source = FolderSource(write_drive(tmp_path / "drive", 4, scenes=["a", "b"]))
    names = ("png", "video", "json")
    whole, killed, bare = (tmp_path / name for name in ("whole", "killed", "bare"))
    draw(source, whole, FakePredictor(tracks=True), *names)
    for _ in range(2):
        with pytest.raises(Killed):
            draw(source, killed, FakePredictor(dies_at=1, tracks=True), *names)
    draw(source, killed, FakePredictor(tracks=True), *names)
    draw(source, bare, FakePredictor(), *names)
    pictures = [files_in(folder / "pictures") for folder in (whole, killed, bare)]
    assert pictures[0] == pictures[1] != pictures[2]
    for video in ("0000_a.mp4", "0001_b.mp4"):
        frames = [frames_of(folder / "videos" / video) for folder in (whole, killed, bare)]
        np.testing.assert_array_equal(*frames[:2])
        assert len(frames[0]) == 2 and not np.array_equal(frames[0], frames[2])
    lines = [(folder / "objects.jsonl").read_bytes() for folder in (whole, killed)]
    assert lines[0] == lines[1]


def test_tracks_for_tests_have_each_kind() -> None:
    tracks = made_tracks(np.random.default_rng(0))
    assert tracks.ids[1] == NO_ID and np.isnan(tracks.trails_m[1]).all()
    assert np.isfinite(tracks.trails_m[0]).all() and np.isnan(tracks.trails_m[2, 0]).all()


def test_tracking_results_are_in_the_official_form(source: FolderSource, tmp_path: Path) -> None:
    draw(source, tmp_path, FakePredictor(tracks=True), "tracking")
    content = json.loads((tmp_path / "tracking_nusc.json").read_text())
    assert content["meta"]["use_camera"] is True and content["meta"]["use_lidar"] is False
    frames = detected(source)
    assert list(content["results"]) == [moment.name for moment, _ in frames]
    records = [record for found in content["results"].values() for record in found]
    assert 0 < len(records) < 2 * len(frames)  # the second of three objects has no id
    tracked = tracked_kinds(NUSCENES)
    for moment, objects in frames:
        there = objects.to("world")
        for record in content["results"][moment.name]:
            (row,) = np.flatnonzero(objects.ids == int(record["tracking_id"]))
            np.testing.assert_allclose(record["translation"], there.centers[row])
            assert record["tracking_score"] == objects.tracks.scores[row]
            assert record["tracking_name"] == tracked[objects.names[row]]
            assert record["sample_token"] == moment.name


def test_the_rows_of_tracking_results_are_those_in_range(
    source: FolderSource, tmp_path: Path
) -> None:
    """The first object is too far away for its class."""
    moment, objects = detected(source)[0]
    boxes = objects.detections.boxes.clone()
    boxes[0, 0] = 500.0
    labels = torch.zeros_like(objects.detections.labels)
    far = replace(objects, detections=replace(objects.detections, boxes=boxes, labels=labels))
    sink = TrackingResults(tmp_path / "tracking_nusc.json", tmp_path)
    (records,) = json.loads(f"{{{sink.line(moment, far)}}}").values()
    assert [record["tracking_id"] for record in records] == [str(objects.ids[2])]


def test_tracking_results_without_a_tracker_are_refused(
    source: FolderSource, tmp_path: Path
) -> None:
    moment, objects = detected(source, tracks=False)[0]
    sink = TrackingResults(tmp_path / "tracking_nusc.json", tmp_path)
    with pytest.raises(InputError, match="000000: its objects have no ids, and tracking_nusc.json"):
        sink.line(moment, objects)
    assert sink.line(moment, objects[:0]) == '"000000": []'  # all pictures are broken
    with pytest.raises(InputError, match=r"--write tracking needs objects with ids: add --tracker"):
        check_sinks(["json", "tracking"], None)
    for names, tracker in ((["json", "tracking"], "greedy"), (["json", "video"], None)):
        check_sinks(names, tracker)


def test_the_devkit_reads_tracking_results(source: FolderSource, tmp_path: Path) -> None:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.tracking.data_classes import TrackingBox

    config_factory("tracking_nips_2019")  # it tells the boxes which classes there are
    draw(source, tmp_path, FakePredictor(tracks=True), "tracking")
    boxes, meta = load_prediction(str(tmp_path / "tracking_nusc.json"), 500, TrackingBox)
    assert meta["use_camera"] and len(boxes.all) > 0
    assert boxes.sample_tokens == [moment.name for moment, _ in detected(source)]
