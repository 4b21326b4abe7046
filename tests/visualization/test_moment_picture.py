"""A moment of any car is drawn as a key frame of nuScenes is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from moments import SIZES, VEHICLE, found, moment, objects_of

from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.errors import InputError
from streampetr_vit.inference.sources.nuscenes import moment_of
from streampetr_vit.structures import Detections, Distortion, Objects, Pose, Rig
from streampetr_vit.visualization import draw_moment, draw_record
from streampetr_vit.visualization.camera_grid import GRID_ORDER, rows_by_view
from streampetr_vit.visualization.camera_shots import camera_shots
from streampetr_vit.visualization.colors import CLASS_COLORS, MISSING_COLOR
from streampetr_vit.visualization.frame_picture import visible_truth

WIDTH, GAP, HEADER, LEGEND = 320, 4, 26, 28


def test_cameras_of_nuscenes_look_as_those_of_a_record(tiny_nuscenes: Path) -> None:
    record = load_split(tiny_nuscenes, "v1.0-mini", "mini_val")[2]
    truth = visible_truth(record, 40.0)
    boxes = truth.boxes.nan_to_num().float()
    detections = Detections(boxes, torch.linspace(0.9, 0.1, len(boxes)), truth.labels)
    moment = moment_of(record)
    objects = objects_of(detections, moment, record.lidar_to_ego)
    ours = draw_moment(moment, objects, 0.3, 40.0, WIDTH)
    theirs = draw_record(record, detections, 0.3, 40.0, WIDTH, with_truth=False)
    height, width = 2 * 180 + GAP, 3 * WIDTH + 2 * GAP
    ours, theirs = (image[HEADER : HEADER + height, :width].astype(int) for image in (ours, theirs))
    assert (ours != theirs).mean() < 1e-3  # a record's cameras are placed in float32
    assert (ours == CLASS_COLORS["car"]).all(axis=2).sum() > 50


def test_nuscenes_cameras_are_placed_by_where_they_look(tiny_nuscenes: Path) -> None:
    record = load_split(tiny_nuscenes, "v1.0-mini", "mini_val")[0]
    rows = [[camera.name for camera in row] for row in rows_by_view(moment_of(record).rig)]
    assert rows == [list(GRID_ORDER[:3]), list(GRID_ORDER[3:])]


def test_rows_of_other_rigs() -> None:
    rig = moment().rig
    names = [[camera.name for camera in row] for row in rows_by_view(rig)]
    assert names == [["left", "front", "right"], ["rear"]]
    front, left, rear, right = rig.cameras
    many = [replace(front, name=f"front {k}") for k in range(5)]
    shifted = Pose(
        front.camera_to_vehicle.translation_m + (0, 1, 0), front.camera_to_vehicle.rotation_wxyz
    )
    many[3] = replace(many[3], camera_to_vehicle=shifted)
    rows = rows_by_view(Rig([rear, *many]))
    assert [[camera.name for camera in row] for row in rows] == [
        ["front 3", "front 0", "front 1"],
        ["front 2", "front 4"],
        ["rear"],
    ]


def test_pictures_of_several_sizes_are_of_one_height(tmp_path: Path) -> None:
    picture = draw_moment(moment(), found(), panel_width=WIDTH)
    height = round(WIDTH * SIZES["front"][1] / SIZES["front"][0])
    both = 2 * height + GAP
    assert picture.shape[0] == HEADER + both + LEGEND + 20  # a second line of the legend
    assert picture.shape[1] == WIDTH + 2 * height + 3 * GAP + both
    # Each camera has its own grey; see `moments.moment`.
    middle = HEADER + height // 2
    greys = [picture[middle, x, 0] for x in (20, height + 40, 2 * height + WIDTH - 20)]
    assert greys == [100, 80, 140]
    assert picture[HEADER + height + GAP + 40, height + 40, 0] == 120


def test_a_dropped_camera_is_a_panel_that_says_so() -> None:
    whole = moment()
    dropped = replace(whole, pictures={**whole.pictures, "left": None})
    missing = replace(whole, pictures={k: v for k, v in whole.pictures.items() if k != "left"})
    first, second = (draw_moment(m, found(), panel_width=WIDTH) for m in (dropped, missing))
    np.testing.assert_array_equal(first, second)
    assert first.shape == draw_moment(whole, found(), panel_width=WIDTH).shape
    panel = first[HEADER : HEADER + 180, :180]
    shares = (panel == MISSING_COLOR).all(axis=2)
    assert 0.8 < shares.mean() < 1
    assert not shares[80:100].all()  # the words


def test_the_header_says_what_the_moment_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from streampetr_vit.visualization import sheet

    texts: list[str] = []
    drawn = sheet.draw_text

    def write_down(image: np.ndarray, text: str, *args, **kwargs) -> int:
        texts.append(text)
        return drawn(image, text, *args, **kwargs)

    monkeypatch.setattr(sheet, "draw_text", write_down)
    draw_moment(moment(), found(starts_scene=True), score_threshold=0.5)
    header = ["drive 1", "12.50 s", "1 object of score 0.50 and more", "starts anew"]
    assert texts[:4] == header and "true box" not in texts
    texts.clear()
    draw_moment(moment(), found(), score_threshold=0.1)
    assert texts[2] == "2 objects of score 0.10 and more" and texts[3] != "starts anew"
    assert {"car", "pedestrian"} < set(texts)


def test_a_narrow_picture_has_more_lines_and_every_name() -> None:
    whole = moment()
    one = replace(
        whole, rig=Rig(whole.rig.cameras[:1]), pictures={"front": whole.pictures["front"]}
    )
    picture = draw_moment(one, found(), panel_width=WIDTH)
    legend = picture[-(picture.shape[0] - 180 - HEADER) :]
    for name in ("car", "traffic_cone"):
        assert (legend == CLASS_COLORS[name]).all(axis=2).sum() > 60, name


@pytest.mark.parametrize("frame", ["vehicle", "world"])
def test_the_view_from_above_is_that_of_the_vehicle(frame: str) -> None:
    empty = draw_moment(moment(), found(), score_threshold=2.0, range_m=20.0, panel_width=WIDTH)
    picture = draw_moment(
        moment(), found().to(frame), score_threshold=0.5, range_m=20.0, panel_width=WIDTH
    )
    size = 2 * 180 + GAP
    area = slice(HEADER, HEADER + size), slice(-size, None)
    change = np.abs(picture[area].astype(int) - empty[area]).max(axis=2) > 60
    rows, columns = np.nonzero(change)
    pixels_per_m = size / 40.0
    # The car is 12 m ahead and 3 m to the left, 4 m long, and drives ahead by 3 m in a second.
    left_m = ((size - 1) / 2 - columns.min()) / pixels_per_m
    ahead_m = ((size - 1) / 2 - np.array([rows.max(), rows.min()])) / pixels_per_m
    assert left_m == pytest.approx(4.0, abs=0.3)
    assert ahead_m == pytest.approx([10.0, 15.0], abs=0.35)


def test_pictures_that_were_taken_later_are_seen_from_where_the_car_was_then() -> None:
    later = Pose(
        VEHICLE.translation_m + VEHICLE.rotation().apply([2.0, 0, 0]), VEHICLE.rotation_wxyz
    )
    whole = replace(moment(), camera_vehicle_to_world={"rear": later.matrix()})
    shots = {shot.camera.name: shot for shot in camera_shots(whole)}
    for name, shift in (("front", 0.0), ("rear", 2.0)):
        expected = shots[name].camera.camera_to_vehicle.matrix()
        expected[0, 3] += shift
        np.testing.assert_allclose(shots[name].camera_to_vehicle, expected, atol=1e-9)
    # A point 10 m before the front camera, 1 m to its left, with the focal length 200.
    u, v, depth, _ = shots["front"].vehicle_to_image() @ (1.5 + 10.0, 1.0, 1.6, 1.0)
    assert (u / depth, v / depth, depth) == pytest.approx((160 - 20, 90, 10))


def test_files_are_read_as_they_are_given(tmp_path: Path) -> None:
    whole = moment()
    path = tmp_path / "front.png"
    colored = np.zeros((180, 320, 3), np.uint8)
    colored[..., 0] = 200  # red
    cv2.imwrite(str(path), colored[:, :, ::-1])
    for given in (path, str(path)):
        shots = camera_shots(replace(whole, pictures={"front": given}))
        np.testing.assert_array_equal(shots[0].image, colored)


def test_what_cannot_be_drawn_is_named() -> None:
    whole = moment()
    front = whole.rig.cameras[0]
    bent = replace(front, distortion=Distortion(np.array([0.1, 0, 0, 0])))
    wrong = np.zeros((90, 160, 3), np.uint8)
    cases = [
        (
            replace(whole, rig=Rig([bent, *whole.rig.cameras[1:]])),
            "camera 'front' has a distortion",
        ),
        (
            replace(whole, pictures={"front": wrong}),
            r"is uint8 of the shape \(90, 160, 3\), the rig",
        ),
        (
            replace(whole, pictures={"fromt": wrong}),
            "pictures has the camera 'fromt'.*it has front",
        ),
        (
            replace(whole, camera_vehicle_to_world={"rear": np.ones((3, 4))}),
            r"camera_vehicle_to_world of camera 'rear' is of shape \(3, 4\)",
        ),
    ]
    for case, message in cases:
        with pytest.raises(InputError, match=message):
            draw_moment(case, found())


def test_no_object_is_no_error() -> None:
    objects = found()[:0]
    assert isinstance(objects, Objects) and len(objects) == 0
    empty = draw_moment(moment(), objects, panel_width=WIDTH)
    above = draw_moment(moment(), found(), score_threshold=2.0, panel_width=WIDTH)
    np.testing.assert_array_equal(empty[HEADER:-LEGEND], above[HEADER:-LEGEND])
