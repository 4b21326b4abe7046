"""Which seconds of which scenes a report shows the tracks of, and what it says of them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made_nuscenes import VERSION, Layout, write_tables
from made_tracks import made_tracks, tracked_box

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError
from streampetr_vit.report import track_boxes, track_pictures
from streampetr_vit.report.page import PictureGroup
from streampetr_vit.report.track_boxes import (
    TrackBoxes,
    chosen_windows,
    predicted_boxes,
    true_boxes,
)
from streampetr_vit.report.track_pictures import draw_tracks
from streampetr_vit.structures import DatasetSpec, ObjectClass
from streampetr_vit.tracking.classes import tracked_kinds
from streampetr_vit.visualization.encoding import encode_jpeg
from streampetr_vit.visualization.trails_from_above import EgoPath, TrailPanel

SCENES = ["scene-0", "scene-1", "scene-2"]
CLASSES = ("car", "pedestrian", "barrier")
RANGE_M = 60.0  # farther than any object


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> FrameRecords:
    """Three scenes of six frames with two cars, two pedestrians and two barriers each."""
    root = tmp_path_factory.mktemp("tracked")
    write_tables(root, SCENES, frames=6, boxes_per_class=2, layout=Layout(classes=CLASSES))
    return load_split(root, VERSION, SCENES)


def _frames(records: FrameRecords, scene: int = 0) -> list[Any]:
    return [records[6 * scene + k] for k in range(6)]


def _draw(records: FrameRecords, results: Any, **more: Any) -> PictureGroup:
    group = draw_tracks(records, results, "mine", RANGE_M, **more)
    assert group is not None
    return group


def test_true_boxes_are_those_of_tracked_classes_with_points(records: FrameRecords) -> None:
    frames = _frames(records)
    true = true_boxes(frames, tracked_kinds(records.spec), RANGE_M)
    # In one frame the second object of each class has no points.
    assert len(true) == 4 * 6 - 2 and len(true.names()) == 4
    assert set(true.kinds.tolist()) == {"car", "pedestrian"}
    for name in true.names():  # they stand or go at one velocity
        part = true[true.ids == name]
        steps = np.diff(part.places_m, axis=0) / np.diff(part.frames)[:, None]
        np.testing.assert_allclose(steps, steps[:1].repeat(len(steps), axis=0), atol=1e-6)
    near = true_boxes(frames, tracked_kinds(records.spec), 15.0)
    assert 0 < len(near) < len(true)


@pytest.mark.parametrize(
    ("kind", "forward_m", "count"),
    # The lidar is 0.94 m in front of the vehicle's origin.
    [("car", 49.0, 1), ("car", 49.1, 0), ("pedestrian", 39.0, 1), ("pedestrian", 39.1, 0)],
)
def test_range_of_a_class(records: FrameRecords, kind: str, forward_m: float, count: int) -> None:
    record = replace(
        records[0],
        gt_boxes=np.array([[0.0, forward_m, *[0.0] * 7]]),
        gt_labels=np.array([records.spec.class_names.index(kind)]),
        num_lidar_pts=np.ones(1, np.int32),
        num_radar_pts=np.zeros(1, np.int32),
        instance=np.zeros(1, np.int32),
    )
    assert len(true_boxes([record], tracked_kinds(records.spec), RANGE_M)) == count


def test_predicted_boxes_are_where_true_ones_are(records: FrameRecords) -> None:
    frames, results = _frames(records), made_tracks(records)
    true = true_boxes(frames, tracked_kinds(records.spec), RANGE_M)
    found = predicted_boxes(frames, results, RANGE_M)
    np.testing.assert_allclose(found.places_m, true.places_m, atol=1e-6)
    assert found.kinds.tolist() == true.kinds.tolist()
    near = predicted_boxes(frames, results, 15.0)
    assert len(near) == len(true_boxes(frames, tracked_kinds(records.spec), 15.0))


def test_the_score_of_a_track_is_the_mean_over_its_boxes(records: FrameRecords) -> None:
    first, second = _frames(records)[:2]
    ahead = np.array([0.0, 5.0, 0.0])
    results = {
        first.token: [tracked_box(first, ahead, "a", "car", 0.2)],
        second.token: [
            tracked_box(second, ahead, "a", "car", 0.6),
            tracked_box(second, ahead, "b", "car", 1.0),
        ],
    }
    found = predicted_boxes([first, second], results, RANGE_M)
    assert found.scores.tolist() == pytest.approx([0.4, 0.4, 1.0])
    assert found.frames.tolist() == [0, 1, 1]


def test_true_tracks_have_no_mistakes(records: FrameRecords) -> None:
    group = _draw(records, made_tracks(records))
    assert len(group.pictures) == 2
    for caption in group.pictures:
        assert re.fullmatch(
            r"scene-\d, frames 1 to 6 \(2.5 s\): 4 of 4 true objects have an id; 0 id switches; "
            "0 tracks at no object",
            caption,
        )
    assert '"mine" of any score' in group.text


def test_mistakes_are_counted(records: FrameRecords) -> None:
    frames = _frames(records)
    results = made_tracks(records)
    name = results[frames[0].token][0]["tracking_id"]
    for number, record in enumerate(frames):
        for box in results[record.token]:
            if box["tracking_id"] == name and number >= 3:
                box["tracking_id"] = "another"
    for token in (frames[1].token, frames[2].token):
        results[token].append(tracked_box(frames[1], np.array([0, 40.0, 0]), "false", "car", 0.9))
    alone = records.select_scenes([records[0].scene_name])
    (caption,) = _draw(alone, results).pictures
    assert caption.endswith(": 4 of 4 true objects have an id; 1 id switch; 1 track at no object")
    (caption,) = _draw(alone, {}).pictures
    assert caption.endswith(
        ": 0 of 4 true objects have an id; 0 id switches; 0 tracks at no object"
    )


def test_tracks_that_are_weaker_than_there_are_objects_are_left_out(records: FrameRecords) -> None:
    group = _draw(records, made_tracks(records, false=5))
    assert '"mine" with a mean score of at least 0.10' in group.text  # one false box is a tie
    results = made_tracks(records)
    for record in records:
        extra = [tracked_box(record, np.array([k, 30.0, 0]), f"w{k}", "car", 0.3) for k in range(4)]
        results[record.token] += [*extra, tracked_box(record, np.zeros(3), "s", "car", 0.9)]
    group = _draw(records, results)
    assert "mean score of at least 0.50" in group.text
    assert all(caption.endswith("; 1 track at no object") for caption in group.pictures)


def test_windows_of_the_scenes_where_most_objects_move(
    records: FrameRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = tracked_kinds(records.spec)
    alone = records.select_scenes([records[6].scene_name])
    (whole,) = chosen_windows(alone, kinds, RANGE_M, 2)
    assert whole.first == 0 and len(whole.frames) == 6
    # The two ends of a scene that is alone.
    monkeypatch.setattr(track_boxes, "LONGEST_WINDOW", 3)
    monkeypatch.setattr(track_boxes, "_FEWEST_FRAMES", 3)
    windows = chosen_windows(alone, kinds, RANGE_M, 2)
    assert sorted(w.first for w in windows) == [0, 3] and {len(w.frames) for w in windows} == {3}
    # Two windows of each scene, in their order.
    values = iter(
        [(True, 1, 9), (True, 6, 9), (True, 5, 9), (True, 4, 9), (True, 2, 9), (True, 3, 9)]
    )
    monkeypatch.setattr(track_boxes, "_worth", lambda _: next(values))
    names = records.scene_names
    found = chosen_windows(records, kinds, RANGE_M, 4)
    assert [(names.index(w.frames[0].scene_name), w.first) for w in found] == [
        *((0, 3), (1, 0), (2, 3)),
        (1, 3),
    ]
    # What is left over at the end is too short to show a way.
    monkeypatch.setattr(track_boxes, "LONGEST_WINDOW", 4)
    monkeypatch.setattr(track_boxes, "_worth", lambda _: (True, 1, 1))
    assert [w.first for w in chosen_windows(alone, kinds, RANGE_M, 2)] == [0]


def _ways(count: int, length_m: float) -> TrackBoxes:
    ids = np.repeat([f"{k}" for k in range(count)], 2)
    places = np.stack((np.tile([0.0, length_m], count), np.zeros(2 * count)), axis=1)
    frames, kinds = np.tile([0, 1], count), np.full(2 * count, "car")
    return TrackBoxes(frames, ids, kinds, places, np.ones(2 * count))


def test_objects_that_move_are_worth_more_and_crowds_less() -> None:
    # From best to worst.
    ways = [_ways(5, 3.0), _ways(4, 3.0), _ways(30, 1.0), _ways(5, 1.0), _ways(31, 9.0)]
    ways.append(_ways(40, 9.0))
    worth = [track_boxes._worth(way) for way in ways]
    assert worth == sorted(worth, reverse=True) and len(set(worth)) == len(worth)


def test_colours_and_labels(records: FrameRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the objects, in both panels; red for a second id, grey for no object."""
    drawn: list[tuple[TrailPanel, TrailPanel]] = []

    def draw_trail_panels(panels: tuple[TrailPanel, TrailPanel], ego: EgoPath) -> np.ndarray:
        assert len(ego.places_m) == len(ego.headings) == 6
        drawn.append(panels)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(track_pictures, "draw_trail_panels", draw_trail_panels)
    alone = records.select_scenes([records[0].scene_name])
    results = made_tracks(alone)
    frames = _frames(alone)
    first, *_ = (box["tracking_id"] for box in results[frames[0].token])
    for record in frames[:2]:
        (box,) = (box for box in results[record.token] if box["tracking_id"] == first)
        box["tracking_id"] = "a name that is too long"
    for record in frames[3:5]:
        results[record.token].append(tracked_box(record, np.array([0, 40.0, 0]), "f", "car", 0.9))
    _draw(alone, results)
    ((true, found),) = drawn
    colors = [trail.color for trail in true.trails]
    assert len(set(colors)) == 4 and [trail.label for trail in true.trails] == list("1234")
    there = {tuple(trail.places_m[-1].round(3)): trail.color for trail in true.trails}
    by_label = {trail.label: trail for trail in found.trails}
    assert by_label["o long"].color == track_pictures.OTHER_ID_COLOR not in colors
    assert by_label[""].color == track_pictures.FALSE_COLOR
    assert found.trails[-1].label == ""  # below all others
    others = [trail for label, trail in by_label.items() if label not in ("o long", "")]
    assert len(others) == 4
    for trail in others:
        assert trail.color == there[tuple(trail.places_m[-1].round(3))]
    # The object has its new id from the third frame on.
    np.testing.assert_allclose(found.rings_m, by_label[first].places_m[:1])


def test_own_classes_are_shown_as_the_official_ones_that_they_are_tracked_as(
    tmp_path: Path,
) -> None:
    van = ObjectClass("van", ["van"], scored_as="car")
    spec = DatasetSpec([van, ObjectClass("animal", ["animal"])], cameras=["front"])
    write_tables(tmp_path, ["a"], frames=3, boxes_per_class=1, layout=Layout(spec))
    records = load_split(tmp_path, VERSION, ["a"], spec=spec)
    results = made_tracks(records)
    for boxes in results.values():  # as an evaluation writes them
        boxes[:] = [box for box in boxes if box["tracking_name"] == "car"]
    (caption,) = _draw(records, results).pictures
    assert ": 1 of 1 true objects have an id" in caption


def test_no_picture_without_true_tracks(records: FrameRecords) -> None:
    assert draw_tracks(records, made_tracks(records), "mine", 0.5) is None


def test_pictures_are_small(records: FrameRecords) -> None:
    group = _draw(records, made_tracks(records, noise_m=0.3, dropped=0.2, renamed=0.1, false=3))
    for image in group.pictures.values():
        assert image.shape[0] <= 1000 and image.shape[1] <= 1280
        assert len(encode_jpeg(image)) < 150_000


EVIL = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"translation": [1.0, float("nan"), 0.0]}, "translation"),
        ({"translation": [1.0, 2.0]}, "translation"),
        ({"translation": 10**400}, "translation"),
        ({"tracking_id": 7}, "tracking_id 7; it must be a text"),
        ({"tracking_name": None}, "tracking_name"),
        ({"tracking_score": float("nan")}, "tracking_score"),
        ({"tracking_score": EVIL}, "tracking_score"),
        (None, "must be a list of boxes"),
        (7, "has the form 7"),
    ],
)
def test_boxes_of_strangers(records: FrameRecords, changes: Any, message: str) -> None:
    results = made_tracks(records)
    token = records[0].token
    if changes is None:
        results[token] = {}  # type: ignore[assignment]
    elif isinstance(changes, int):
        results[token][0] = changes  # type: ignore[call-overload]
    else:
        results[token][0].update(changes)
    with pytest.raises(InputError, match=f"tracking results.*'{token}'.*{message}") as error:
        _draw(records, results, count=3)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_names_of_strangers_are_drawn(records: FrameRecords) -> None:
    results = made_tracks(records)
    for boxes in results.values():
        for box in boxes:
            box["tracking_id"] += EVIL + "\N{SNOWMAN}\0"
    assert len(_draw(records, results).pictures) == 2


def test_scenes_that_share_a_name(tmp_path: Path) -> None:
    layout = Layout(classes=("car",))
    write_tables(tmp_path, ["a", "b"], frames=2, boxes_per_class=1, layout=layout)
    path = tmp_path / VERSION / "scene.json"
    path.write_text(path.read_text().replace('"name": "b"', '"name": "a"'))
    assert [row["name"] for row in json.loads(path.read_text())] == ["a", "a"]
    shutil.rmtree(tmp_path / ".streampetr_vit", ignore_errors=True)
    records = load_split(tmp_path, VERSION, ["a"])
    assert len(_draw(records, made_tracks(records)).pictures) == 2
