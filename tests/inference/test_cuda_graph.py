"""A stream through a graph gives what the plain stream gives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_detector import make_detector, make_repdetr3d, make_sample, same

from streampetr_vit.errors import InputError
from streampetr_vit.inference import Stream, cuda_graph
from streampetr_vit.inference.cuda_graph import InputBuffers, Run, StepInputs, StepOutputs
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Frame
from streampetr_vit.structures.tensors import map_tensors, tensors_of

both_heads = pytest.mark.parametrize("make", [make_detector, make_repdetr3d])


cache_enabled = torch.is_autocast_cache_enabled


def four_frames() -> list[Frame]:
    """A stream that starts anew at its third frame, and has another rig in its last one."""
    samples = [make_sample(time, continues=time not in (0, 2)) for time in range(4)]
    samples[3] = make_sample(3, intrinsics=samples[3].intrinsics * 2)
    return [Frame.collate([sample]) for sample in samples]


def play(stream: Stream, frames: list[Frame]) -> list[Any]:
    """Detections and memory of every frame."""
    return [(stream.push(frame), stream.memory) for frame in frames]


def emulated_capture(run: Run, inputs: StepInputs) -> tuple[Callable[[], None], StepOutputs]:
    """As a CUDA graph: each launch reads the same inputs and writes the same outputs."""
    outputs = map_tensors(run(inputs), torch.clone)
    map_tensors(outputs, lambda value: value.zero_())  # a captured call does not compute

    def launch() -> None:
        for old, new in zip(tensors_of(outputs), tensors_of(run(inputs)), strict=True):
            old.copy_(new)

    return launch, outputs


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs on a CPU."""
    monkeypatch.setattr(cuda_graph, "_check_capture", lambda detector: None)
    monkeypatch.setattr(cuda_graph, "capture", emulated_capture)


@both_heads
def test_a_graph_gives_the_same_and_writes_into_no_result(
    make: Callable[[], StreamPETR], emulated: None
) -> None:
    detector = make().eval()
    expected = play(Stream(detector), four_frames())
    found = play(Stream(detector, cuda_graph=True), four_frames())
    assert same(found, expected)


def test_a_graph_is_captured_for_each_new_shape(
    emulated: None, caplog: pytest.LogCaptureFixture
) -> None:
    detector = make_detector().eval()
    graph, eager = Stream(detector, cuda_graph=True), Stream(detector)
    caplog.set_level(logging.INFO, cuda_graph.__name__)
    wide = make_sample(0)
    narrow = make_sample(0, images=wide.images[..., :48])
    for samples in ([wide], [wide], [narrow], [narrow, narrow], [wide]):
        graph.reset()
        eager.reset()
        assert same(graph(samples), eager(samples))
    captured = [r.getMessage() for r in caplog.records if "capturing" in r.getMessage()]
    assert len(captured) == 4 and "(1, 6, 3, 32, 48)" in captured[1]


def test_no_weight_that_autocast_keeps_outlives_a_capture(emulated: None) -> None:
    """It would lie in the graph's memory. Without a graph it is kept from layer to layer."""
    detector, kept = make_detector().eval(), []
    detector.backbone.register_forward_hook(lambda *_: kept.append(cache_enabled()))
    Stream(detector, "bf16", cuda_graph=True).push(four_frames()[0])
    assert kept and not any(kept)
    Stream(detector, "bf16").push(four_frames()[0])
    assert kept[-1]


def test_the_buffers_of_a_graph_are_filled_in_place_and_the_code_only_when_it_is_another() -> None:
    detector = make_detector().eval()
    frames = four_frames()

    def inputs_of(frame: Frame) -> StepInputs:
        memory = detector.empty_memory(1).map(lambda value: value + 1)
        with torch.no_grad():
            return StepInputs(frame, memory, detector.head.encode_rig(frame.rig, (32, 64)))

    first, second = inputs_of(frames[0]), inputs_of(frames[3])
    buffers = InputBuffers(first, torch.device("cpu"))
    places = [value.data_ptr() for value in tensors_of(buffers.inputs)]
    assert same(buffers.inputs, first)
    with_old_code = StepInputs(second.frame, second.memory, first.rig_code)
    buffers.inputs.rig_code.gain.zero_()
    buffers.fill(with_old_code)  # the same object: what is in the buffer stays
    assert same(buffers.inputs.frame, second.frame) and not buffers.inputs.rig_code.gain.any()
    buffers.fill(second)
    assert same(buffers.inputs, second)
    assert [value.data_ptr() for value in tensors_of(buffers.inputs)] == places
    half = map_tensors(second, lambda value: value.half() if value.is_floating_point() else value)
    narrow = StepInputs(
        Frame.collate([make_sample(0, images=make_sample(0).images[..., :48])]),
        second.memory,
        second.rig_code,
    )
    assert buffers.fit(first) and not buffers.fit(half) and not buffers.fit(narrow)


def test_what_cannot_be_captured_is_refused() -> None:
    with pytest.raises(InputError, match="cuda_graph=True needs the detector on a GPU.*'cpu'"):
        Stream(make_detector().eval(), cuda_graph=True)
    with pytest.raises(InputError, match="sampling_kernel='gather'.*use 'grid_sample'"):
        Stream(make_repdetr3d(sampling_kernel="gather").eval(), cuda_graph=True)


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@gpu
@both_heads
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("on_device", [False, True])
def test_a_cuda_graph_equals_the_eager_stream(
    make: Callable[[], StreamPETR], precision: str, on_device: bool
) -> None:
    detector = make().eval().cuda()
    frames = [frame.to("cuda") if on_device else frame for frame in four_frames()]
    eager = play(Stream(detector, precision), frames)
    graph = play(Stream(detector, precision, cuda_graph=True), frames)
    for found, expected in zip(tensors_of(graph), tensors_of(eager), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@gpu
@both_heads
@pytest.mark.parametrize("on_device", [False, True])
def test_push_never_waits_for_the_device(make: Callable[[], StreamPETR], on_device: bool) -> None:
    stream = Stream(make().eval().cuda())
    frames = [frame.to("cuda") if on_device else frame for frame in four_frames()]
    stream.push(frames[0])
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for frame in frames[1:]:
            stream.push(frame)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
