"""The predictor: equal to the evaluation, several cars, cameras that drop out, rates, states."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny_car import DIRECTIONS, REFERENCE, RIG, make_moment, make_predictor, make_rig
from tiny_detector import make_detector, make_repdetr3d, same

from streampetr_vit.data.image_io import BadImageError
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.inference import Moment, Objects, Predictor, Rig, Stream
from streampetr_vit.inference.sources.nuscenes import moment_of
from streampetr_vit.inference.undistortion import undistorted
from streampetr_vit.structures import Distortion, Pose

both_heads = pytest.mark.parametrize("make", [make_detector, make_repdetr3d])


def play(predictor: Predictor, moments: Sequence[Moment]) -> list[Objects]:
    return [predictor.predict_batch([moment])[0] for moment in moments]


def found(objects: Sequence[Objects]) -> list[Any]:
    return [entry.detections for entry in objects]


def close(a: Sequence[Objects], b: Sequence[Objects]) -> bool:
    """Whether the same was found, but for what a batch rounds otherwise than a single row."""
    pairs = [
        (getattr(x.detections, n), getattr(y.detections, n))
        for x, y in zip(a, b, strict=True)
        for n in ("boxes", "scores", "labels")
    ]
    return all(
        one.shape == two.shape and torch.allclose(one, two, rtol=1e-4, atol=1e-4)
        for one, two in pairs
    )


def test_whole_scenes_give_what_the_evaluation_gives(tiny_nuscenes: Path) -> None:
    records = open_dataset({"root": str(tiny_nuscenes), "version": "v1.0-mini"})
    predictor = make_predictor()
    mapper = NuScenesMapper(training=False, image_aug=predictor.loaded.image_aug)
    stream = Stream(predictor.loaded.detector)
    scenes = set()
    for record in records:
        (expected,) = stream([mapper(record)])
        (objects,) = predictor.predict_batch([moment_of(record)])
        torch.testing.assert_close(objects.detections.boxes, expected.boxes, rtol=0, atol=1e-4)
        torch.testing.assert_close(objects.detections.scores, expected.scores, rtol=0, atol=1e-6)
        assert torch.equal(objects.detections.labels, expected.labels)
        # Nobody has told the predictor where a scene ends.
        assert objects.starts_scene == (record.scene_token not in scenes)
        scenes.add(record.scene_token)
    assert len(scenes) == 2


def test_motion_between_the_pictures_is_that_of_the_poses() -> None:
    """A camera whose picture is later sees from where the car was then."""
    later = Pose(np.array([603.0, 11, 0.5]), np.array([np.cos(0.1), 0, 0, np.sin(0.1)]))
    moment = make_moment(0, camera_vehicle_to_world={"left": later})
    now = np.linalg.inv(moment.vehicle_to_world.matrix())
    moved = [
        replace(c, camera_to_vehicle=now @ later.matrix() @ c.camera_to_vehicle.matrix())
        if c.name == "left"
        else c
        for c in RIG.cameras
    ]
    expected = play(make_predictor(), [make_moment(0, Rig(moved))])
    assert close(play(make_predictor(), [moment]), expected)
    assert not close(play(make_predictor(), [make_moment(0)]), expected)


def test_files_arrays_and_both_orders_of_channels_are_the_same(tmp_path: Path) -> None:
    moment = make_moment(0)
    files, swapped = {}, {}
    for name, picture in moment.pictures.items():
        files[name] = tmp_path / f"{name}.png"
        cv2.imwrite(str(files[name]), picture[:, :, ::-1])
        swapped[name] = np.ascontiguousarray(picture[:, :, ::-1])
    expected = found(play(make_predictor(), [moment]))
    for pictures in (files, {name: str(path) for name, path in files.items()}):
        assert same(found(play(make_predictor(), [replace(moment, pictures=pictures)])), expected)
    bgr = make_predictor(channel_order="bgr")
    assert same(found(play(bgr, [replace(moment, pictures=swapped)])), expected)
    assert not same(found(play(make_predictor(), [replace(moment, pictures=swapped)])), expected)


def test_objects_are_in_the_frame_of_the_vehicle_and_of_the_world() -> None:
    turned = Pose(np.array([600.0, 10, 0.5]), np.array([np.cos(0.3), 0, 0, np.sin(0.3)]))
    (objects,) = play(make_predictor(), [make_moment(0, vehicle_to_world=turned)])
    boxes = objects.detections.boxes.double().numpy()
    # The network's frame has x to the right and y forward.
    expected = np.stack((boxes[:, 1] + 0.94, -boxes[:, 0], boxes[:, 2] + 1.84), axis=1)
    np.testing.assert_allclose(objects.centers, expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(1j * objects.yaws), np.exp(1j * (boxes[:, 6] - np.pi / 2)))
    np.testing.assert_allclose(
        objects.velocities, np.stack((boxes[:, 8], -boxes[:, 7]), axis=1), atol=1e-5
    )
    world = objects.to("world")
    np.testing.assert_allclose(
        world.centers, objects.centers @ turned.matrix()[:3, :3].T + [600, 10, 0.5]
    )
    np.testing.assert_allclose(np.exp(1j * world.yaws), np.exp(1j * (objects.yaws + 0.6)))
    np.testing.assert_allclose(world.to("vehicle").centers, objects.centers)
    assert list(objects.names) == [objects.spec.class_names[n] for n in objects.detections.labels]
    strong = objects[objects.scores > np.median(objects.scores)]
    assert 0 < len(strong) < len(objects) and (strong.scores > np.median(objects.scores)).all()
    assert same(objects[:3].detections.boxes, objects.detections.boxes[:3])
    assert len(objects[0]) == 1 and len(objects[[]]) == 0
    records = objects.to_nuscenes("token")
    near = objects[np.hypot(*objects.centers[:, :2].T) <= 30]  # the shortest range of a class
    assert {r["sample_token"] for r in records} == {"token"} and len(near) <= len(records)
    index = next(n for n, r in enumerate(records) if r["detection_score"] == objects.scores[0])
    np.testing.assert_allclose(records[index]["translation"], world.centers[0])
    with pytest.raises(InputError, match="frame 'lidar': objects are in 'vehicle' or 'world'"):
        objects.to("lidar")


@both_heads
def test_two_cars_in_a_batch_are_each_alone(make: Callable[[], Any]) -> None:
    """Of four cameras with two sizes of pictures, and of three; one loses a camera on the way."""
    detector = make().eval()
    first = make_rig(left=(96, 48), rear=(96, 48))
    second = Rig(RIG.cameras[:3])
    drives = [
        [make_moment(0.5 * n, first, seed=1) for n in range(7)],
        [make_moment(0.5 * n, second, seed=2) for n in range(7)],
    ]
    for moment in drives[0][2:5]:
        moment.pictures["rear"] = None
    together = make_predictor(detector)
    pairs = [together.predict_batch(pair) for pair in zip(*drives, strict=True)]
    for row, drive in enumerate(drives):
        assert close([pair[row] for pair in pairs], play(make_predictor(detector), drive))
    cameras = [pair[0].cameras for pair in pairs]
    assert cameras[1] == tuple(DIRECTIONS) and cameras[2] == ("front", "left", "right")
    assert [pair[0].starts_scene for pair in pairs] == [True] + 6 * [False]


@both_heads
def test_a_camera_that_drops_out_is_a_rig_without_it(make: Callable[[], Any]) -> None:
    detector = make().eval()
    less = Rig([camera for camera in RIG.cameras if camera.name != "rear"])
    moments = [make_moment(0.5 * n) for n in range(4)]
    dropped = [replace(m, pictures=m.pictures | {"rear": None}) for m in moments]
    pictures = [{n: p for n, p in m.pictures.items() if n != "rear"} for m in moments]
    without = [replace(m, rig=less, pictures=p) for m, p in zip(moments, pictures, strict=True)]
    expected = found(play(make_predictor(detector), without))
    assert same(found(play(make_predictor(detector), dropped)), expected)
    absent = [replace(m, pictures=p) for m, p in zip(moments, pictures, strict=True)]
    allowing = make_predictor(detector, allow_missing_cameras=True)
    assert same(found(play(allowing, absent)), expected)
    assert not same(found(play(make_predictor(detector), moments)), expected)


@pytest.mark.parametrize(
    ("time_s", "changes", "says"),
    [
        (-1.0, {}, "the time goes back by 1.000 s"),
        (2.5, {}, "2.500 s have passed, more than max_gap_s=2"),
        (
            0.5,
            {"vehicle_to_world": Pose(np.array([700.0, 10, 0.5]), np.array([1.0, 0, 0, 0]))},
            "the car has moved by 100.0 m in 0.500 s",
        ),
        (
            0.1,
            {"vehicle_to_world": Pose(np.array([600.4, 10, 0.5]), np.array([0, 0, 0, 1.0]))},
            "the car has turned by 180 degrees in 0.100 s",
        ),
    ],
    ids=["back", "gap", "jump", "turn"],
)
def test_a_new_scene_is_recognised(
    time_s: float, changes: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = make_predictor()
    play(predictor, [make_moment(0)])
    with caplog.at_level(logging.INFO, "streampetr_vit"):
        (objects,) = play(predictor, [make_moment(time_s, **changes)])
    assert objects.starts_scene and f"a scene begins: {says}" in caplog.text
    assert same(found([objects]), found(play(make_predictor(), [make_moment(time_s, **changes)])))


@pytest.mark.parametrize("time_s", [0.0, 0.05, 0.5, 2.0])
def test_a_moment_that_a_car_can_reach_goes_on(time_s: float) -> None:
    predictor = make_predictor()
    play(predictor, [make_moment(0)])
    (objects,) = play(predictor, [make_moment(time_s)])
    assert not objects.starts_scene
    assert not same(found([objects]), found(play(make_predictor(), [make_moment(time_s)])))


def test_without_memory_every_moment_stands_alone() -> None:
    objects = play(make_predictor(memory=False), [make_moment(0), make_moment(0.5)])
    assert all(entry.starts_scene for entry in objects)
    assert same(found(objects[1:]), found(play(make_predictor(), [make_moment(0.5)])))


def test_reset_begins_a_scene() -> None:
    predictor = make_predictor()
    first = play(predictor, [make_moment(0)])
    predictor.reset()
    again = play(predictor, [make_moment(0)])
    assert again[0].starts_scene and same(found(again), found(first))


def test_only_the_car_that_jumps_begins_anew() -> None:
    predictor = make_predictor()
    predictor.predict_batch([make_moment(0, seed=1), make_moment(0, seed=2)])
    objects = predictor.predict_batch([make_moment(0.5, seed=1), make_moment(60, seed=2)])
    assert [entry.starts_scene for entry in objects] == [False, True]
    alone = play(make_predictor(), [make_moment(0, seed=1), make_moment(0.5, seed=1)])
    assert close(objects[:1], alone[1:])


def test_times_in_another_unit_are_told(caplog: pytest.LogCaptureFixture) -> None:
    predictor = make_predictor()
    for frame in range(5):  # milliseconds, ten frames a second
        play(predictor, [make_moment(0, timestamp_s=100.0 * frame)])
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "the last 3 moments each began a scene" in warnings[0]
    assert "is timestamp_s in seconds" in warnings[0]


@pytest.mark.parametrize(("rate", "every"), [(20, 10), (10, 5), (5, 2), (4, 2), (3, 1), (2, 1)])
def test_the_memory_takes_moments_at_the_rate_of_the_training(rate: int, every: int) -> None:
    """What is seen between them uses the memory, and leaves it as it is."""
    moments = [make_moment(n / rate) for n in range(3 * every + 2)]
    fast = play(make_predictor(), moments)
    slow = play(make_predictor(frame_period_s=0), moments[::every])
    assert same(found(fast[::every]), found(slow))
    between = play(make_predictor(), [make_moment(1 / rate)])
    assert not fast[1].starts_scene and not same(found(fast[1:2]), found(between))


def test_key_frames_that_come_a_little_early_are_all_remembered() -> None:
    times = np.cumsum([0, 0.5, 0.4, 0.55, 0.35, 0.5])
    moments = [make_moment(float(time)) for time in times]
    every = play(make_predictor(frame_period_s=0), moments)
    assert same(found(play(make_predictor(), moments)), found(every))


def test_a_moment_that_fails_leaves_the_predictor_as_it_was() -> None:
    moments = [make_moment(0.5 * n) for n in range(3)]
    expected = play(make_predictor(), moments)
    predictor = make_predictor()
    objects = play(predictor, moments[:2])
    for bad in (
        replace(make_moment(1.0), timestamp_s=float("nan")),
        replace(make_moment(1.0), pictures={}),
    ):
        with pytest.raises(InputError):
            predictor.predict_batch([bad])
    assert same(found(objects + play(predictor, moments[2:])), found(expected))


@pytest.mark.parametrize("cars", [1, 2])
def test_a_state_goes_on_in_another_process(cars: int, tmp_path: Path) -> None:
    batches = [[make_moment(0.3 * n, seed=car) for car in range(cars)] for n in range(8)]
    one, other = make_predictor(), make_predictor()
    expected = [one.predict_batch(batch) for batch in batches]
    for batch in batches[:5]:
        other.predict_batch(batch)
    other.save_state(tmp_path / "state.safetensors")
    restarted = make_predictor()
    restarted.load_state(tmp_path / "state.safetensors")
    for batch, objects in zip(batches[5:], expected[5:], strict=True):
        again = restarted.predict_batch(batch)
        assert same(found(again), found(objects)) and not again[0].starts_scene


def test_a_state_before_the_first_moment_is_one(tmp_path: Path) -> None:
    make_predictor().save_state(tmp_path / "state")
    predictor = make_predictor()
    predictor.load_state(tmp_path / "state")
    assert same(
        found(play(predictor, [make_moment(0)])), found(play(make_predictor(), [make_moment(0)]))
    )


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    predictor = make_predictor()
    with pytest.raises(MissingFileError, match="no state of a predictor at '.*absent'"):
        predictor.load_state(tmp_path / "absent")
    (tmp_path / "text").write_text("no state")
    with pytest.raises(InputError, match="text is no state of a predictor .*remove it"):
        predictor.load_state(tmp_path / "text")
    play(predictor, [make_moment(0)])
    predictor.save_state(tmp_path / "state")
    whole = (tmp_path / "state").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="half is no state of a predictor"):
        predictor.load_state(tmp_path / "half")
    other = make_predictor(make_detector(memory_length=12, num_propagated=4).eval())
    with pytest.raises(InputError, match=r"state is of another detector: its embedding is \(1, 8"):
        other.load_state(tmp_path / "state")


def test_a_bent_picture_is_seen_straight() -> None:
    """A lens, and a pinhole camera with the picture that straightening makes of the lens's."""
    lens = Distortion([-0.2, 0.05, 0, 0])
    bent = Rig([replace(c, distortion=lens if c.name == "left" else None) for c in RIG.cameras])
    moment = make_moment(0, bent)
    straight = undistorted(bent.camera("left")).apply(moment.pictures["left"])
    expected = play(
        make_predictor(), [make_moment(0, pictures=moment.pictures | {"left": straight})]
    )
    assert same(found(play(make_predictor(), [moment])), found(expected))
    assert not same(found(play(make_predictor(), [make_moment(0)])), found(expected))


def test_a_broken_file_is_named_or_left_out(tmp_path: Path, caplog: Any) -> None:
    broken = tmp_path / "left.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    moment = replace(make_moment(0), scene="yard", name="000007")
    moment = replace(moment, pictures=moment.pictures | {"left": broken})
    with pytest.raises(
        BadImageError, match=r"yard 000007: camera left: picture .*left.jpg is trun"
    ):
        make_predictor().predict_batch([moment])
    counting = make_predictor(on_bad_image="count")
    prepared = counting.prepare(moment)
    assert len(prepared.bad_pictures) == 1 and "left.jpg" in prepared.bad_pictures[0]
    (objects,) = counting.detect([prepared])
    assert objects.cameras == ("front", "rear", "right") and "left out camera left" in caplog.text
    without = replace(moment, pictures=moment.pictures | {"left": None})
    assert same(found([objects]), found(play(make_predictor(), [without])))


def test_a_rig_may_state_its_own_reference_frame() -> None:
    """The frame of the network moves on the car: what it sees is another view of the world."""
    own = Pose(np.array([1.5, 0.0, 1.6]), REFERENCE.rotation_wxyz)
    (objects,) = play(make_predictor(), [make_moment(0, Rig(RIG.cameras, own))])
    np.testing.assert_array_equal(objects.reference_to_vehicle.translation_m, [1.5, 0, 1.6])
    assert not close([objects], play(make_predictor(), [make_moment(0)]))
    assert same(
        found(play(make_predictor(), [make_moment(0, Rig(RIG.cameras, REFERENCE))])),
        found(play(make_predictor(), [make_moment(0)])),
    )


def test_another_number_of_cars_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    predictor = make_predictor()
    play(predictor, [make_moment(0)])
    with caplog.at_level(logging.INFO, "streampetr_vit"):
        objects = predictor.predict_batch([make_moment(0.5), make_moment(0.5, seed=1)])
    assert all(entry.starts_scene for entry in objects) and "2 cars after 1" in caplog.text
    with pytest.raises(InputError, match="there is no moment"):
        predictor.predict_batch([])
