"""Laps, peaks, made-up input and rows: what every sub-command is made of."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import tiny_detector
import torch

from streampetr_vit.benchmark.frames import StreamRun
from streampetr_vit.benchmark.inputs import made_up_batch, made_up_frame, made_up_sample
from streampetr_vit.benchmark.measuring import (
    PeakMemory,
    Stopwatch,
    alternately,
    as_text,
    relative_difference,
    stage_rows,
    time_row,
)
from streampetr_vit.benchmark.session import Session, measure_peak
from streampetr_vit.engine import load_config
from streampetr_vit.inference import Stream

CPU = torch.device("cpu")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_laps_of_one_name_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 13.0, 16.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    watch = Stopwatch(CPU)
    watch.start()
    for name in ("head", "position", "head"):
        watch.lap(name)
    assert watch.seconds() == {"head": 4.0, "position": 2.0}


def test_calls_take_turns_and_warm_up_does_not_count() -> None:
    order: list[str] = []
    calls = [lambda: order.append("a"), lambda: order.append("b")]
    samples = alternately(calls, repeats=2, warmup=1)
    assert "".join(order) == "ababab"
    assert [len(own) for own in samples] == [2, 2] and min(min(own) for own in samples) >= 0


def test_columns_of_a_time() -> None:
    row = time_row([1.0, 2.0, 3.0, 4.0, 5.0], tflop=6.0, peak_tflops=4.0)
    assert row["p50_ms"] == 3000 and row["p90_ms"] == pytest.approx(4600)
    assert row["tflops"] == 2.0 and row["share_of_peak"] == 0.5
    assert set(time_row([1.0])) == {"p50_ms", "p90_ms"}


def test_shares_of_stages_that_not_every_run_has() -> None:
    head, once = stage_rows([{"head": 1.0}, {"head": 3.0, "rig": 4.0}], {"head": 2.0}, 2.0)
    assert (head["stage"], head["share"], head["share_of_peak"]) == ("head", 0.5, 0.5)
    assert (once["stage"], once["share"], once["p50_ms"]) == ("rig", 0.5, 2000)


def test_peak_memory_sees_a_large_tensor() -> None:
    memory = PeakMemory(CPU)
    before = memory.gib()
    torch.ones(2**26).sum()  # 256 MiB
    after = memory.gib()
    assert before is not None and after is not None
    assert after > before + 0.2


def test_stages_of_a_frame_cover_it_in_order() -> None:
    detector = tiny_detector.make_detector().eval()
    frame = made_up_frame((32, 64), 6, 1)
    run = StreamRun(Session(""), detector, [frame])
    run.push()
    run.push()
    first, second = run.laps
    assert list(first) == ["preprocess", "position embedding", "backbone", "head", "decode"]
    assert list(second) == ["preprocess", "backbone", "head", "decode"]  # the rig is the same


def test_what_is_timed_is_a_stream_that_goes_on() -> None:
    detector = tiny_detector.make_detector().eval()
    frame = made_up_frame((32, 64), 6, 2)
    run = StreamRun(Session(""), detector, [frame])
    stream = Stream(detector)
    for _ in range(2):
        run.push()
        stream.push(frame)
    memory, expected = run._stream.memory, stream.memory
    assert memory is not None and expected is not None
    assert torch.equal(memory.embedding, expected.embedding)
    fresh = Stream(detector)
    fresh.push(frame)
    assert fresh.memory is not None and not torch.equal(memory.embedding, fresh.memory.embedding)


@pytest.mark.parametrize("cameras", [1, 6, 8])
def test_made_up_cameras_look_all_around(cameras: int) -> None:
    sample = made_up_sample((320, 800), cameras)
    assert sample.images.shape == (cameras, 3, 320, 800) and sample.images.dtype == torch.uint8
    # What lies 20 m along a camera's view is in the middle of its picture, slightly below.
    for camera in range(cameras):
        angle = 2 * np.pi * camera / cameras
        point = torch.tensor([-20 * np.sin(angle), 20 * np.cos(angle), -0.3, 1.0]).float()
        x, y, depth, _ = sample.lidar_to_image[camera] @ point
        assert depth == pytest.approx(20) and x / depth == pytest.approx(400, abs=0.01)
        assert y / depth == pytest.approx(160, abs=0.01)
        turn = sample.lidar_to_camera[camera, :3, :3]
        assert torch.linalg.det(turn) == pytest.approx(1)


def test_a_made_up_batch_is_as_the_loaders() -> None:
    frames = made_up_batch(load_config(str(CONFIGS / "quickstart.py")), (160, 400), 2)
    assert len(frames) == len(list(frames.samples())) == 2
    cfg = load_config(str(CONFIGS / "streampetr_eva02_l_800x320_window8_24ep.py"))
    windows = made_up_batch(cfg, (160, 400), 2)
    settings = cfg.dataloader.train
    assert [len(window) for window in windows] == [settings.window_length - 1] * 2


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_peak_is_measured(precision: str) -> None:
    rows = measure_peak(CPU, precision, seconds=0.02)
    assert [row["product"] for row in rows][:2] == ["torch.mm", "F.linear"]
    for row in rows:
        assert 0 < row["tflops"] < 1000 and row["precision"] == precision and "x" in row["shape"]


def test_relative_difference() -> None:
    expected = torch.tensor([[2.0, -4.0]])
    assert relative_difference(expected + 0.4, expected) == pytest.approx(0.1)
    assert relative_difference(torch.zeros(2), torch.zeros(2)) == 0.0


def test_a_table_has_the_columns_of_all_rows() -> None:
    text = as_text(
        {"frame": [{"form": "fast", "p50_ms": 12.5}, {"form": "plain", "error": "none"}]}
    )
    title, header, _, fast, plain = (line.split() for line in text.splitlines())
    assert (title, header) == (["frame"], ["form", "p50_ms", "error"])
    assert (fast, plain) == (["fast", "12.5", "-"], ["plain", "-", "none"])
