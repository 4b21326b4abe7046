"""What people do wrong with a predictor, and what it then says, keeps and forgets."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_car import RIG, make_moment, make_predictor
from tiny_detector import make_detector, same

from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.inference import Objects, Pose, Predictor

DETECTOR = make_detector().eval()
STRAIGHT = np.array([1.0, 0, 0, 0])


def play(predictor: Predictor, *times: float) -> list[Objects]:
    return [predictor.predict_batch([make_moment(time)])[0] for time in times]


def at(vehicle_to_world: Any) -> Callable[[Predictor], Any]:
    return lambda p: p.predict_batch([make_moment(0, vehicle_to_world=vehicle_to_world)])


WRONG: dict[str, tuple[Callable[[Predictor], Any], str]] = {
    "no list": (
        lambda p: p.predict_batch(make_moment(0)),  # type: ignore[arg-type]
        "moments are a Moment: give a list of Moment, one for each car",
    ),
    "a dict of cars": (
        lambda p: p.predict_batch({"car": make_moment(0)}),  # type: ignore[arg-type]
        "moments are a dict: give a list of Moment",
    ),
    "None": (lambda p: p.predict_batch(None), "moments are a NoneType"),  # type: ignore[arg-type]
    "no moment": (
        lambda p: p.predict_batch([make_moment(0), "b"]),  # type: ignore[list-item]
        "car 1: the moment is a str: give a Moment",
    ),
    "not prepared": (
        lambda p: p.detect([make_moment(0)]),  # type: ignore[list-item]
        "the prepared moment is a Moment: give what `prepare` made of it",
    ),
    "the second car": (
        lambda p: p.predict_batch([make_moment(0), make_moment(0, pictures={})]),
        "car 1: there is no picture of camera front, left, rear, right",
    ),
    "short pose": (
        at(Pose(np.zeros(2), STRAIGHT)),
        "vehicle_to_world is a Pose with translation_m of shape (2,) and rotation_wxyz of shape "
        "(4,): give 3 and 4 numbers",
    ),
    "pose of texts": (at(Pose("a", "b")), "vehicle_to_world is a Pose with"),  # type: ignore[arg-type]
    "huge pose": (at([[10**400] * 4] * 4), "give a 4x4 matrix, or a Pose"),
    "pose with gradients": (
        at(torch.eye(4, requires_grad=True)),
        "give a 4x4 matrix, or a Pose",
    ),
    "huge time": (
        lambda p: p.predict_batch([make_moment(0, timestamp_s=10**400)]),
        "give seconds, a finite number",
    ),
    "float32 time": (
        lambda p: p.predict_batch([make_moment(0, timestamp_s=np.float32(1.5e9))]),
        "timestamp_s is 1500000000 as float32, which knows times so large to 128 s: give float64",
    ),
    "poses as list": (
        lambda p: p.predict_batch([make_moment(0, camera_vehicle_to_world=[STRAIGHT])]),
        "give {camera: pose}",
    ),
    "pose of a camera": (
        lambda p: p.predict_batch([make_moment(0, camera_vehicle_to_world={"left": np.eye(4)})]),
        "camera_vehicle_to_world of camera left is 600.1 m from vehicle_to_world: give the pose of "
        "the vehicle, not of the camera",
    ),
    "misspelt option": (
        lambda p: Predictor.load("absent", max_gap=2),
        "the option max_gap of a predictor is unknown: did you mean max_gap_s?",
    ),
    "text as gap": (
        lambda p: make_predictor(DETECTOR, max_gap_s="2"),
        "max_gap_s is '2': give a number of seconds",
    ),
}


@pytest.mark.parametrize(("use", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_use_is_told(use: Callable[[Predictor], Any], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        use(make_predictor(DETECTOR))


@pytest.mark.parametrize("value", [1.5e9, np.float64(1.5e9), 1500000000, np.float32(3)])
def test_times_of_every_exact_type_are_taken(value: Any) -> None:
    (objects,) = make_predictor(DETECTOR).predict_batch([make_moment(0, timestamp_s=value)])
    assert objects.timestamp_s == float(value)


@pytest.mark.parametrize("kind", [np.float32, list, torch.tensor, Pose], ids=str)
def test_poses_of_every_type_are_one(kind: Any) -> None:
    place = [600.0, 10.0, 0.5]
    matrix = np.eye(4)
    matrix[:3, 3] = place
    if kind is Pose:
        value: Any = Pose(place, [1, 0, 0, 0])  # type: ignore[arg-type]
    else:
        value = matrix.astype(kind) if kind is np.float32 else kind(matrix.tolist())
    predictor = make_predictor(DETECTOR)
    at(value)(predictor)
    (objects,) = play(predictor, 0.5)
    assert same(objects.detections, play(make_predictor(DETECTOR), 0, 0.5)[1].detections)


def test_a_pose_that_the_caller_writes_to_is_not_changed() -> None:
    pose = Pose(np.array([600.0, 10, 0.5]), STRAIGHT.copy())
    predictor = make_predictor(DETECTOR)
    (objects,) = at(pose)(predictor)
    before = objects.to("world").centers
    pose.translation_m[0] += 1000
    pose.rotation_wxyz[:] = (0.8, 0, 0, 0.6)
    np.testing.assert_array_equal(objects.to("world").centers, before)
    (objects,) = predictor.predict_batch([make_moment(0.5, vehicle_to_world=pose)])
    assert objects.starts_scene
    assert objects.vehicle_to_world.matrix()[0, 1] == pytest.approx(-0.96)


@pytest.mark.parametrize("times", [[5.0] * 6, [0, 0, 0, 0, 1, 1, 1, 1]], ids=["constant", "whole"])
def test_a_time_that_stands_still_is_told(
    times: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    predictor = make_predictor(DETECTOR)
    for number, time in enumerate(times):
        predictor.predict_batch([make_moment(0.1 * number, timestamp_s=time)])
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == len(set(times))
    assert "the last 3 moments each have the time of the one before" in warnings[0]


def test_poses_that_no_car_has_are_told(caplog: pytest.LogCaptureFixture) -> None:
    predictor = make_predictor(DETECTOR)
    for number in range(6):  # millimetres
        pose = Pose(np.array([1e3 * number, 0, 0]), STRAIGHT)
        predictor.predict_batch([make_moment(0.1 * number, vehicle_to_world=pose)])
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "the last 3 moments each began a scene, as the car has moved by 1000.0 m" in warning
    assert "is vehicle_to_world in metres" in warning


def test_a_network_without_numbers_is_told_and_not_remembered() -> None:
    detector = make_detector().eval()
    predictor = make_predictor(detector)
    play(predictor, 0)
    last = next(reversed(list(detector.head.parameters())))
    kept = last.detach().clone()
    with torch.no_grad():
        last.fill_(torch.nan)
    with pytest.raises(InputError, match="the network computes NaN or infinite numbers"):
        play(predictor, 0.5)
    with torch.no_grad():
        last.copy_(kept)
    (objects,) = play(predictor, 0.5)
    assert same(objects.detections, play(make_predictor(DETECTOR), 0, 0.5)[1].detections)


def test_a_failed_call_for_more_cars_forgets_nothing(tmp_path: Path) -> None:
    detector = make_detector().eval()
    predictor = make_predictor(detector)
    play(predictor, 0)
    detector.train()
    with pytest.raises(InputError, match="training mode"):
        predictor.predict_batch([make_moment(0.5)] * 2)
    detector.eval()
    (tmp_path / "text").write_text("no state")
    with pytest.raises(InputError, match="no state of a predictor"):
        predictor.load_state(tmp_path / "text")
    (objects,) = play(predictor, 0.5)
    assert not objects.starts_scene


def test_only_so_much_is_kept_of_cars_that_come_and_go() -> None:
    """Of three cars with four cameras, which lose cameras, there are 28 groups."""
    predictor = make_predictor(DETECTOR)
    names = RIG.names
    for number in range(12):
        moments = []
        for car in range(3):
            moment = make_moment(0.5 * number, seed=car)
            lost = dict.fromkeys(names[: (number + car * (number % 3)) % 4])
            moments.append(replace(moment, pictures=moment.pictures | lost))
        predictor.predict_batch(moments)
    assert len(predictor._steps) <= 8


def test_cars_with_other_rates_go_on_after_a_restart(tmp_path: Path) -> None:
    """The memory of one takes a moment, that of the other does not."""
    pairs = [(0.5 * n, 0.2 * n) for n in range(6)]
    batches = [[make_moment(a, seed=1), make_moment(b, seed=2)] for a, b in pairs]
    whole, first, second = (make_predictor(DETECTOR) for _ in range(3))
    expected = [whole.predict_batch(batch) for batch in batches]
    for batch in batches[:3]:
        first.predict_batch(batch)
    first.save_state(tmp_path / "state")
    second.load_state(tmp_path / "state")
    for batch, pair in zip(batches[3:], expected[3:], strict=True):
        for objects, wanted in zip(second.predict_batch(batch), pair, strict=True):
            assert same(objects.detections, wanted.detections)


def test_a_state_of_other_weights_is_refused(tmp_path: Path) -> None:
    predictor = make_predictor(DETECTOR)
    predictor.loaded = replace(predictor.loaded, identity="one")
    play(predictor, 0)
    predictor.save_state(tmp_path / "state")
    predictor.load_state(tmp_path / "state")
    with pytest.raises(InputError, match="state was written with other weights or another prec"):
        make_predictor(DETECTOR).load_state(tmp_path / "state")


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return lambda tensors: tensors | {name: change(tensors[name])}


@pytest.mark.parametrize(
    "change",
    [
        changed("drives", lambda rows: rows * torch.nan),
        changed("drives", lambda rows: torch.where(torch.arange(10) == 9, torch.inf, rows)),
        changed("drives", lambda rows: rows * (torch.arange(10) == 0)),
        changed("drives", lambda rows: rows.float()),
        changed("drives", lambda rows: torch.cat((rows, rows), dim=1)),
        changed("embedding.0", lambda values: values / 0),
    ],
    ids=["NaN", "infinite count", "no rotation", "float32", "wide", "memory"],
)
def test_a_state_with_impossible_values_is_refused(change: Any, tmp_path: Path) -> None:
    predictor = make_predictor(DETECTOR)
    play(predictor, 0, 0.5)
    predictor.save_state(tmp_path / "state")
    tensors = {k: v.contiguous() for k, v in change(load_file(tmp_path / "state")).items()}
    save_file(tensors, tmp_path / "bad")
    with pytest.raises(InputError, match="bad is no state of a predictor"):
        predictor.load_state(tmp_path / "bad")


def test_a_state_on_a_full_disk_is_an_error_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = make_predictor(DETECTOR)
    play(predictor, 0)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="cannot write .*state': No space left on device; free"):
        predictor.save_state(tmp_path / "state")


def test_pictures_that_are_all_broken_are_told(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no picture")
    pictures = dict.fromkeys(RIG.names, tmp_path / "no.png")
    predictor = make_predictor(DETECTOR, on_bad_image="count")
    with pytest.raises(InputError, match="no picture of this moment can be used .camera front"):
        predictor.predict_batch([make_moment(0, pictures=pictures)])
