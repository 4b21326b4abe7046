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
from streampetr_vit.report import track_boxes
from streampetr_vit.report.page import PictureGroup
from streampetr_vit.report.track_boxes import chosen_windows, predicted_boxes, true_boxes
from streampetr_vit.report.track_pictures import draw_tracks
from streampetr_vit.tracking.classes import tracked_kinds
from streampetr_vit.visualization.encoding import encode_jpeg

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
    assert [w.first for w in chosen_windows(alone, kinds, RANGE_M, 2)] == [0]
    # The two ends of a scene that is alone; the end of six frames is too short for more.
    monkeypatch.setattr(track_boxes, "LONGEST_WINDOW", 3)
    monkeypatch.setattr(track_boxes, "_FEWEST_FRAMES", 3)
    windows = chosen_windows(alone, kinds, RANGE_M, 2)
    assert sorted(w.first for w in windows) == [0, 3] and {len(w.frames) for w in windows} == {3}
    chosen = chosen_windows(records, kinds, RANGE_M, 3)
    assert {w.frames[0].scene_name for w in chosen} == set(records.scene_names)
    # No object can be told from another in a crowd.
    monkeypatch.setattr(track_boxes, "LONGEST_WINDOW", 20)
    worth = {
        number: track_boxes._worth(true_boxes(_frames(records, number), kinds, RANGE_M))
        for number in range(3)
    }
    monkeypatch.setattr(track_boxes, "_MOST_OBJECTS", 3)
    crowd = track_boxes._worth(true_boxes(_frames(records), kinds, RANGE_M))
    assert crowd < min(worth.values()) and crowd[0] is False


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
