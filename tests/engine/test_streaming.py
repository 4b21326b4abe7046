"""The streaming step: eager, and through a graph, gives what the detector gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_detector import make_detector, make_repdetr3d, make_sample

from streampetr_vit.engine import streaming
from streampetr_vit.engine.streaming import StepInputs, StepOutputs, StreamingStep, cast_weights
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Frame
from streampetr_vit.structures.tensors import map_tensors, tensors_of

both_heads = pytest.mark.parametrize("make", [make_detector, make_repdetr3d])


def four_frames() -> list[Frame]:
    """A stream that starts anew at its third frame."""
    samples = [make_sample(time, continues=time not in (0, 2)) for time in range(4)]
    return [Frame.collate([sample]) for sample in samples]


def play(step: StreamingStep, detector: StreamPETR, frames: list[Frame]) -> list[Any]:
    """Detections and memory of every frame."""
    memory, results = detector.empty_memory(len(frames[0].images)), []
    for frame in frames:
        found, memory = step.step(frame, memory)
        results.append((found, memory))
    return results


def same(a: Any, b: Any) -> bool:
    return all(map(torch.equal, tensors_of(a), tensors_of(b)))


@both_heads
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_eager_step_is_the_detectors(make: Callable[[], StreamPETR], precision: str) -> None:
    detector = make().eval()
    found = play(StreamingStep(detector, precision), detector, four_frames())
    memory = detector.empty_memory(1)
    for frame, (detections, next_memory) in zip(four_frames(), found, strict=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            expected, memory = detector.detect(frame, memory)
        assert same(detections, expected) and same(next_memory, memory)


def emulated_capture(
    run: streaming.Run, inputs: StepInputs
) -> tuple[Callable[[], None], StepOutputs]:
    """As a CUDA graph: each launch reads the same inputs and writes the same outputs."""
    outputs = map_tensors(run(inputs), torch.clone)
    map_tensors(outputs, lambda value: value.zero_())  # a captured call does not compute

    def launch() -> None:
        for old, new in zip(tensors_of(outputs), tensors_of(run(inputs)), strict=True):
            old.copy_(new)

    return launch, outputs


@both_heads
def test_a_graph_gives_the_same_and_writes_into_no_result(
    make: Callable[[], StreamPETR], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make().eval()
    frames = four_frames()
    # Another rig in the last frame.
    frames[3] = Frame.collate([make_sample(3) | {"intrinsics": make_sample(3)["intrinsics"] * 2}])
    expected = play(StreamingStep(detector), detector, frames)
    monkeypatch.setattr(streaming, "_check_capture", lambda detector: None)
    monkeypatch.setattr(streaming, "capture", emulated_capture)
    found = play(StreamingStep(detector, cuda_graph=True), detector, frames)
    for (a, memory_a), (b, memory_b) in zip(found, expected, strict=True):
        assert same(a, b) and same(memory_a, memory_b)


def test_a_graph_is_captured_for_each_new_shape(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    detector = make_detector().eval()
    monkeypatch.setattr(streaming, "_check_capture", lambda detector: None)
    monkeypatch.setattr(streaming, "capture", emulated_capture)
    step, eager = StreamingStep(detector, cuda_graph=True), StreamingStep(detector)
    caplog.set_level("INFO", streaming.__name__)
    wide, narrow = make_sample(0), make_sample(0)
    narrow["images"] = narrow["images"][..., :48]
    for samples in ([wide], [wide], [narrow], [narrow, narrow], [narrow, wide][:1]):
        memory = detector.empty_memory(len(samples))
        results = [s.step(Frame.collate(samples), memory) for s in (step, eager)]
        assert same(results[0][0], results[1][0])
    captured = [r.getMessage() for r in caplog.records if "capturing" in r.getMessage()]
    assert len(captured) == 4 and "(1, 6, 3, 32, 48)" in captured[1]


def test_what_cannot_be_captured_is_refused() -> None:
    with pytest.raises(InputError, match="cuda_graph=True needs the detector on a GPU.*'cpu'"):
        StreamingStep(make_detector().eval(), cuda_graph=True)
    with pytest.raises(InputError, match="sampling_kernel='gather'.*use 'grid_sample'"):
        StreamingStep(make_repdetr3d(sampling_kernel="gather").eval(), cuda_graph=True)
    with pytest.raises(InputError, match="train.precision='fp8'"):
        StreamingStep(make_detector().eval(), precision="fp8")


def test_training_mode_is_refused() -> None:
    detector = make_detector().train()
    frame, memory = four_frames()[0], detector.empty_memory(1)
    with pytest.raises(ValueError, match="training mode"):
        StreamingStep(detector).step(frame, memory)
    with pytest.raises(ValueError, match="training mode"):
        cast_weights(detector.backbone, torch.bfloat16)


@both_heads
def test_weights_cast_once_give_the_bits_of_autocast(make: Callable[[], StreamPETR]) -> None:
    detector = make().eval()
    expected = play(StreamingStep(detector, "bf16"), detector, four_frames())
    cast = copy.deepcopy(detector)
    found = play(StreamingStep(cast, "bf16", cast=True), cast, four_frames())
    for (a, memory_a), (b, memory_b) in zip(found, expected, strict=True):
        assert same(a, b) and same(memory_a, memory_b)
    dtypes = {type(m): m.weight.dtype for m in cast.backbone.modules() if hasattr(m, "weight")}
    assert dtypes[torch.nn.Linear] == torch.bfloat16
    assert dtypes[torch.nn.LayerNorm] == torch.float32
    assert all(p.dtype == torch.float32 for p in cast.head.parameters())
    assert list(cast.state_dict()) == list(detector.state_dict())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@both_heads
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("on_device", [False, True])
def test_a_cuda_graph_equals_the_eager_step(
    make: Callable[[], StreamPETR], precision: str, on_device: bool
) -> None:
    detector = make().eval().cuda()
    frames = [frame.to("cuda") if on_device else frame for frame in four_frames()]
    eager = play(StreamingStep(detector, precision), detector, frames)
    graph = play(StreamingStep(detector, precision, cuda_graph=True), detector, frames)
    for (a, memory_a), (b, memory_b) in zip(graph, eager, strict=True):
        for found, expected in zip(tensors_of(a), tensors_of(b), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        for found, expected in zip(tensors_of(memory_a), tensors_of(memory_b), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@both_heads
def test_a_frame_on_the_device_never_waits_for_it(make: Callable[[], StreamPETR]) -> None:
    detector = make().eval().cuda()
    step, memory = StreamingStep(detector), detector.empty_memory(1)
    frames = four_frames()
    _, memory = step.step(frames[0], memory)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for frame in frames[1:]:
            _, memory = step.step(frame, memory)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
