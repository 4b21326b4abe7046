"""Laps, percentiles, peaks and reports: what every sub-command is made of."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import tiny_detector
import torch

from streampetr_vit.benchmark import peak as peak_module
from streampetr_vit.benchmark.inputs import made_up_frame, made_up_sample
from streampetr_vit.benchmark.latency import relative_difference
from streampetr_vit.benchmark.machine import describe_machine
from streampetr_vit.benchmark.memory import PeakMemory
from streampetr_vit.benchmark.peak import MatrixPeak, measure_peak, onednn_is_available
from streampetr_vit.benchmark.report import Report
from streampetr_vit.benchmark.stages import stage_laps, streaming_step
from streampetr_vit.benchmark.timing import Repeats, Stopwatch, alternately, percentile
from streampetr_vit.errors import InputError, OutputError

CPU = torch.device("cpu")


def test_laps_of_one_name_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 13.0, 16.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    watch = Stopwatch(CPU)
    watch.start()
    for name in ("head", "position", "head"):
        watch.lap(name)
    assert watch.seconds() == {"head": 4.0, "position": 2.0}


def test_percentiles() -> None:
    assert percentile([4.0, 1.0, 2.0, 3.0], 50) == 2.5
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 90) == pytest.approx(4.6)
    assert percentile([7.0], 90) == 7.0


def test_calls_take_turns_and_warm_up_does_not_count() -> None:
    order: list[str] = []
    calls = [lambda: order.append("a"), lambda: order.append("b")]
    repeats = Repeats(timed=2, warmup=1)
    samples = alternately(calls, CPU, repeats, after=lambda index: order.append(str(index)))
    assert "".join(order) == "aba0b1a0b1"
    assert [len(own) for own in samples] == [2, 2] and min(min(own) for own in samples) >= 0


@pytest.mark.parametrize("values", [(0, 1), (1, -1)])
def test_impossible_repeats(values: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="--repeats must be 1 or more"):
        Repeats(*values)


def test_peak_memory_sees_a_large_tensor() -> None:
    memory = PeakMemory(CPU)
    before = memory.gib()
    torch.ones(2**26).sum()  # 256 MiB
    after = memory.gib()
    assert before is not None and after is not None
    assert after > before + 0.2


def test_stages_of_a_step_cover_it_in_order() -> None:
    detector = tiny_detector.make_detector().eval()
    frame = made_up_frame((32, 64), 6, 1, CPU)
    watch = Stopwatch(CPU)
    with stage_laps(detector, watch):
        watch.start()
        streaming_step(detector, "float32").step(frame, detector.empty_memory(1))
        watch.lap("decode")
    stages = watch.seconds()
    assert list(stages) == ["preprocess", "position embedding", "backbone", "head", "decode"]
    assert not detector.backbone._forward_hooks and not detector.head._forward_hooks


def test_the_step_is_the_detectors_step() -> None:
    detector = tiny_detector.make_detector().eval()
    frame = made_up_frame((32, 64), 6, 2, CPU)
    found, memory = streaming_step(detector, "float32").step(frame, detector.empty_memory(2))
    with torch.no_grad():
        output, expected = detector.step(frame, detector.empty_memory(2))
    assert torch.equal(found.unpad()[1].scores, detector.head.decode(output).unpad()[1].scores)
    assert torch.equal(memory.embedding, expected.embedding)


def test_a_graph_needs_a_gpu() -> None:
    with pytest.raises(InputError, match="needs the detector on a GPU"):
        streaming_step(tiny_detector.make_detector(), "float32", cuda_graph=True)


def test_made_up_cameras_look_where_they_are_mounted() -> None:
    sample = made_up_sample((320, 800), cameras=8)
    assert sample["images"].shape == (8, 3, 320, 800) and sample["images"].dtype == torch.uint8
    # The lidar's y axis points ahead: the front camera sees what lies there, the rear one not.
    ahead = torch.tensor([0.0, 20.0, 0.0, 1.0])
    front, back = (sample["lidar_to_image"][camera] @ ahead for camera in (0, 3))
    assert front[2] > 15 > 0 > back[2]
    assert front[0] / front[2] == pytest.approx(404, abs=25)
    assert torch.equal(sample["lidar_to_image"][6], sample["lidar_to_image"][0])


def test_peak_is_the_best_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_module, "SHAPES", ((32, 32, 32), (64, 64, 64)))
    rates = {
        (32, 32, 32): {"mm": 3.0, "linear": 1.0},
        (64, 64, 64): {"mm": 2.0, "linear": 2.5, "onednn": 4.0},
    }
    monkeypatch.setattr(peak_module, "_rates", lambda shape, *_: rates[shape])
    peak = measure_peak(CPU, "float32", seconds=60)
    assert peak == MatrixPeak(default=3.0, onednn=4.0, shape=(64, 64, 64))
    assert peak.tflops == 4.0


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_peak_is_measured(precision: str) -> None:
    peak = measure_peak(CPU, precision, seconds=0.02)
    assert 0 < peak.tflops < 1000
    assert (peak.onednn is not None) == onednn_is_available(CPU, precision)
    assert peak.tflops == max(peak.default, peak.onednn or 0)


def test_relative_difference() -> None:
    expected = torch.tensor([[2.0, -4.0]])
    assert relative_difference(expected + 0.4, expected) == pytest.approx(0.1)
    assert relative_difference(torch.ones(3), torch.ones(2)) == 0.0
    assert relative_difference(torch.ones(0), torch.ones(0)) == 0.0


def test_report_is_the_same_in_both_forms(tmp_path: Path) -> None:
    report = Report("latency", describe_machine(CPU), {"batch": 1}, notes=["A note."])
    report.tables["frame"] = [{"form": "fast", "p50_ms": 12.5}, {"form": "plain", "error": "none"}]
    assert report.failed
    report.write(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["tables"] == report.tables and content["notes"] == ["A note."]
    machine = ("device", "processor", "threads", "python", "torch", "date", "command")
    assert tuple(content["machine"]) == machine and all(content["machine"].values())
    text = str(report)
    assert "12.5" in text and "A note." in text and torch.__version__ in text
    with pytest.raises(OutputError, match="--output"):
        report.write(tmp_path)
