"""Objects with ids: their colours, labels and trails; and nothing new where there are none."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from moments import found, moment, tracked
from scipy.spatial.transform import Rotation

from streampetr_vit.structures import Detections, Objects, Pose
from streampetr_vit.structures.tracks import NO_ID, TRAIL_LENGTH, Tracks
from streampetr_vit.visualization import draw_moment, drawing, labels, video_writer
from streampetr_vit.visualization.bird_eye_view import draw_bird_eye_view
from streampetr_vit.visualization.camera_panels import draw_camera
from streampetr_vit.visualization.camera_view import with_styles
from streampetr_vit.visualization.colors import CLASS_COLORS, id_color
from streampetr_vit.visualization.labels import HEIGHT_PX, Label, write_labels
from streampetr_vit.visualization.track_marks import TrackMarks, track_text

# A camera in the origin of the boxes that looks along +y, and one that looks along -y.
AHEAD = np.array([[100.0, 100, 0, 0], [0, 60, -100, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
BEHIND = np.array([[-100.0, -100, 0, 0], [0, -60, -100, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
# Of what `draw_moment` drew of these moments before there were ids.
DRAWN_WITHOUT_IDS = "0cd48023f6286fc8eedb76270a14090ee91e4910914e51b627bdf1a3fee684cb"


def test_labels_are_short() -> None:
    texts = [track_text(17, age) for age in (0.0, 3.46, 9.94, 9.96, 61.0)]
    assert texts == ["#17 0.0 s", "#17 3.5 s", "#17 9.9 s", "#17 10 s", "#17 61 s"]


def test_ids_that_follow_each_other_look_apart() -> None:
    colors = np.array([[id_color(number) for number in range(200)]], np.uint8)
    assert colors.reshape(-1, 3).tolist() == [list(id_color(number)) for number in range(200)]
    assert len(np.unique(colors[0], axis=0)) == 200
    lab = cv2.cvtColor(colors.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    steps = np.abs(np.subtract.outer(np.arange(200), np.arange(200)))
    assert apart[(steps > 0) & (steps < 20)].min() > 15
    assert lab[:, 0].min() > 35  # seen on a dark road


def test_trails_come_to_where_the_vehicle_is_now() -> None:
    x, y, z, w = Rotation.from_euler("zyx", [2.0, 0.04, -0.03]).as_quat()
    tilted = Pose(np.array([1000.0, 2000.0, 5.0]), np.array([w, x, y, z]))
    objects = replace(tracked(), vehicle_to_world=tilted).to("world")
    trails = np.full((2, TRAIL_LENGTH, 2), np.nan)
    trails[:, -1] = objects.centers[:, :2]
    trails[0, -2] = objects.centers[0, :2] - (3.0, 4.0)
    marks = TrackMarks.in_vehicle(replace(objects, tracks=replace_trails(objects, trails)))
    assert marks is not None and np.isnan(marks.trails_m[:, :-2]).all()
    floors = tilted.rotation().inv().apply([0.0, 0.0, 1.0]) * -objects.sizes[:, 2:] / 2
    wanted = objects.to("vehicle").centers + floors
    np.testing.assert_allclose(marks.trails_m[:, -1], wanted, atol=1e-9)
    step = tilted.rotation().apply(marks.trails_m[0, -1] - marks.trails_m[0, -2])
    np.testing.assert_allclose(step, (3.0, 4.0, 0.0), atol=1e-9)


def replace_trails(objects: Objects, trails: np.ndarray) -> Tracks:
    assert objects.tracks is not None
    return replace(objects.tracks, trails_m=trails)


def marks_of(ids: list[int], trails: np.ndarray | None = None) -> TrackMarks:
    none = np.full((len(ids), TRAIL_LENGTH, 2), np.nan)
    return TrackMarks(np.array(ids), np.ones(len(ids)), none if trails is None else trails)


def boxes(*places: tuple[float, float], label: int = 0) -> Detections:
    rows = torch.tensor([[x, y, 0.0, 4.0, 2.0, 1.6, 0.0, 0.0, 0.0] for x, y in places])
    count = len(places)
    return Detections(rows, torch.linspace(0.9, 0.5, count), torch.full((count,), label))


def count(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((image == color).all(axis=2).sum())


def test_an_id_has_its_colour_in_every_camera_and_frame() -> None:
    black = np.zeros((120, 200, 3), np.uint8)
    one = draw_camera(
        black, AHEAD, "a", with_styles(boxes((0, 10)), None, marks_of([5])), ["bus"], 200
    )
    # Later it is behind, and another one, of the same class, stands where it stood.
    later = with_styles(boxes((0, 10), (0, -10)), None, marks_of([6, 5]))
    ahead, behind = (draw_camera(black, view, "b", later, ["bus"], 200) for view in (AHEAD, BEHIND))
    pictures = [one, ahead, behind]
    assert [count(picture, id_color(5)) > 100 for picture in pictures] == [True, False, True]
    assert [count(picture, id_color(6)) > 100 for picture in pictures] == [False, True, False]
    for picture in pictures:
        # The square in front of the label has the colour of the class, and no line has it.
        assert count(picture, CLASS_COLORS["bus"]) == 7 * (HEIGHT_PX - 2)


def test_a_box_without_an_id_is_drawn_as_ever() -> None:
    black = np.zeros((120, 200, 3), np.uint8)
    pair = boxes((0, 10))
    drawn, as_ever = (
        draw_camera(black, AHEAD, "a", with_styles(pair, None, marks), ["bus"], 200)
        for marks in (marks_of([NO_ID]), None)
    )
    np.testing.assert_array_equal(drawn, as_ever)


def test_ids_are_written_in_cameras_with_ages_and_from_above(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts: list[str] = []
    put = cv2.putText

    def write_down(image: np.ndarray, text: str, *args: Any) -> None:
        texts.append(text)
        put(image, text, *args)

    monkeypatch.setattr(labels.cv2, "putText", write_down)
    draw_moment(moment(), tracked(), score_threshold=0.2)
    assert "#7 1.5 s" in texts and "#7" in texts
    assert not any(text.startswith("car 0.") for text in texts)
    assert "pedestrian 0.25" in texts and not any(str(NO_ID) in text for text in texts)


def test_trails_are_where_the_object_was_and_fade() -> None:
    trails = np.full((1, TRAIL_LENGTH, 2), np.nan)
    trails[0, -4:] = [(5.0, -9.0), (5.0, -3.0), (5.0, 3.0), (5.0, 9.0)]
    above = partial(draw_bird_eye_view, ["car"], range_m=20.0, size_px=400)  # 10 pixels per metre
    pair = boxes((5.0, 9.0))
    image = above(pair, marks=marks_of([4], trails)).astype(int)
    empty = above(pair, marks=marks_of([4])).astype(int)
    rows, columns = np.nonzero(np.abs(image - empty).max(axis=2) > 8)
    assert abs(columns.mean() - 249.5) < 0.6 and np.ptp(columns) <= 5
    assert abs(rows.max() - (199.5 + 90)) < 2  # where it was first
    parts = [np.abs(image - empty)[199 - y, 249].max() for y in (60, 0, -60)]
    assert parts[0] > 1.4 * parts[1] > 1.4 * 1.4 * parts[2] > 20


def test_a_trail_goes_with_its_object_through_the_picture() -> None:
    """From the frame of the world, below the box of the moment picture."""
    size = 2 * 180 + 4
    with_trail = draw_moment(moment(), tracked(), 0.5, 20.0, 320)[26 : 26 + size, -size:]
    objects = tracked()
    bare = replace(objects, tracks=replace_trails(objects, np.full((2, TRAIL_LENGTH, 2), np.nan)))
    without = draw_moment(moment(), bare, 0.5, 20.0, 320)[26 : 26 + size, -size:]
    rows, columns = np.nonzero(np.abs(with_trail.astype(int) - without).max(axis=2) > 8)
    pixels_per_m = size / 40.0
    assert ((size - 1) / 2 - columns.mean()) / pixels_per_m == pytest.approx(3.0, abs=0.1)
    assert ((size - 1) / 2 - rows.max()) / pixels_per_m == pytest.approx(6.0, abs=0.2)


@pytest.mark.parametrize("crowd", [3, 40, 400])
def test_labels_cover_neither_each_other_nor_the_title(
    crowd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[np.ndarray] = []
    monkeypatch.setattr(labels, "_draw", lambda image, label, place: places.append(place))
    corners = np.random.default_rng(crowd).uniform(-20, 320, (crowd, 2))
    things = np.concatenate((corners, corners + 15), axis=1)
    texts = [Label(track_text(k, 2.0 * k), (200, 0, 0), (0, 0, 0)) for k in range(crowd)]
    image = np.zeros((300, 300, 3), np.uint8)
    assert write_labels(image, texts, things) == len(places) <= crowd
    cover = np.zeros((300, 300), int)
    cover[:24, :130] = 1
    for left, top, right, bottom in np.array(places, int):
        assert 0 <= left < right <= 300 and 0 <= top < bottom <= 300
        cover[top:bottom, left:right] += 1
    assert cover.max() == 1
    assert len(places) == crowd or crowd > 3


def test_a_label_lies_beside_all_boxes_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places: list[np.ndarray] = []
    monkeypatch.setattr(labels, "_draw", lambda image, label, place: places.append(place))
    # Another box stands above the first one.
    things = np.array([[150.0, 150, 200, 180], [140.0, 120, 220, 149]])
    text = Label("#1 2.0 s", (200, 0, 0), (0, 0, 0))
    write_labels(np.zeros((300, 300, 3), np.uint8), [text, text], things)
    assert places[0][1] >= 180 and places[1][3] <= 120


def test_frames_with_and_without_tracks_are_of_one_video(tmp_path: Path) -> None:
    """A frame all of whose pictures are broken has no tracks."""
    with video_writer(tmp_path / "a.mp4", 2.0) as video:
        for objects in (tracked(0), found(1)[:0], tracked(2)):
            video.write(draw_moment(moment(), objects, panel_width=400))
    read = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    frames = 0
    while read.read()[0]:
        frames += 1
    assert frames == 3


def calls(monkeypatch: pytest.MonkeyPatch, objects: Objects) -> str:
    """The digest of what is drawn: of every call, as whole numbers, and of no pixel.

    Pixels differ between releases of OpenCV.
    """
    digest = hashlib.sha256()

    def watched(name: str) -> Any:
        draw = getattr(cv2, name)

        def call(image: np.ndarray, *args: Any) -> Any:
            plain = [a.tolist() if isinstance(a, np.ndarray) else a for a in args]
            digest.update(repr((name, image.shape, plain)).encode())
            return draw(image, *args)

        return call

    with monkeypatch.context() as patch:
        for name in ("line", "fillConvexPoly", "putText", "circle"):
            patch.setattr(drawing.cv2, name, watched(name))
        draw_moment(moment(), objects, score_threshold=0.2, panel_width=400)
    return digest.hexdigest()


def test_without_a_tracker_pictures_are_those_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls(monkeypatch, found()) == DRAWN_WITHOUT_IDS
    assert calls(monkeypatch, tracked()) != DRAWN_WITHOUT_IDS
    as_ever, none = (
        draw_moment(moment(), replace(found(), tracks=tracks), panel_width=400)
        for tracks in (None, Tracks.none(2))
    )
    # With a tracker that knows nobody, the key beside the title is all that is new.
    changed = np.nonzero((as_ever != none).any(axis=2))
    assert len(changed[0]) > 50
    assert np.ptp(changed[0]) < 12 and np.ptp(changed[1]) < 260


def test_labels_of_boxes_at_one_place_are_stacked() -> None:
    thing, text = np.array([140.0, 200, 160, 220]), Label("#1 2.0 s", (200, 0, 0), (0, 0, 0))
    for count, written in ((7, 7), (9, 7)):  # four beside it, three more above; and no more room
        image = np.zeros((300, 300, 3), np.uint8)
        assert write_labels(image, [text] * count, np.stack([thing] * count)) == written
