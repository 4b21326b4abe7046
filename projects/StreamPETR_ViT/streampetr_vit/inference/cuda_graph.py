"""A frame of inference as a CUDA graph: captured once, replayed with new inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone import ViT
from streampetr_vit.modeling.decoder.camera_sampling import CameraSampling
from streampetr_vit.modeling.image.rig_code import RigCode
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Frame, PaddedDetections
from streampetr_vit.structures.tensors import map_tensors, pinned, tensors_of

logger = logging.getLogger(__name__)

_WARM_UP_CALLS = 3  # in the first ones libraries choose their kernels, and allocate


@dataclass(frozen=True)
class StepInputs:
    """All that the device part of a frame reads, beside the weights.

    Attributes:
        frame: of B streams.
        memory: with exactly as many entries as the head keeps.
        rig_code: of the frame's rig.
    """

    frame: Frame
    memory: TemporalMemory
    rig_code: RigCode


@dataclass(frozen=True)
class StepOutputs:
    """What the device part of a frame gives."""

    detections: PaddedDetections
    memory: TemporalMemory


Run = Callable[[StepInputs], StepOutputs]


class GraphStep:
    """Runs frames through a graph, which is captured for the shapes of the first one.

    Other shapes are captured anew (a line of the log says so); another rig only fills a buffer.
    What it returns is the caller's: later calls never write into it.

    Args:
        run: the device part of a frame. It must read nothing that changes but its inputs and the
            weights, which may change in place.
        detector: that `run` calls, on a GPU.

    Raises:
        InputError: the detector is not on a GPU, or has a sampling kernel that cannot be captured.
    """

    def __init__(self, run: Run, detector: nn.Module) -> None:
        _check_capture(detector)
        self._run, self._detector = run, detector
        self._captured: CapturedStep | None = None

    def __call__(self, inputs: StepInputs) -> StepOutputs:
        """The outputs of a frame."""
        if self._captured is None or not self._captured.buffers.fit(inputs):
            self._captured = None  # its memory may serve the new one
            shape = tuple(inputs.frame.images.shape)
            logger.info("capturing a CUDA graph of a frame with images %s", shape)
            self._captured = CapturedStep(self._run, inputs, self._detector)
        return self._captured.replay(inputs)


class InputBuffers:
    """Memory that a graph reads, filled with the inputs of frame after frame.

    Args:
        inputs: of the first frame.
        device: of the buffers.
    """

    def __init__(self, inputs: StepInputs, device: torch.device) -> None:
        with torch.inference_mode(False):  # whoever calls may be in it, and not for ever
            self.inputs = map_tensors(
                inputs, lambda value: torch.empty(value.shape, dtype=value.dtype, device=device)
            )
        self._code: RigCode | None = None
        self.fill(inputs)

    def fit(self, inputs: StepInputs) -> bool:
        """Whether inputs have the shapes and types of the buffers."""
        pairs = zip(tensors_of(self.inputs), tensors_of(inputs), strict=True)
        return all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)

    def fill(self, inputs: StepInputs) -> None:
        """Copies inputs that fit, from the CPU or the device, without waiting for the device."""
        _copy(inputs.frame, self.inputs.frame)
        _copy(inputs.memory, self.inputs.memory)
        if inputs.rig_code is not self._code:  # the largest of all; the same for many frames
            _copy(inputs.rig_code, self.inputs.rig_code)
            self._code = inputs.rig_code


class CapturedStep:
    """A frame as a graph that reads buffers.

    Args:
        run: what to capture. It must read nothing that changes but its inputs and weights.
        inputs: of the first frame.
        detector: that `run` calls, on a GPU.
    """

    def __init__(self, run: Run, inputs: StepInputs, detector: nn.Module) -> None:
        self.buffers = InputBuffers(inputs, next(detector.parameters()).device)
        self._launch, self._outputs = capture(run, self.buffers.inputs)
        # The graph reads their tensors, which a ViT forgets when it meets other sizes.
        self._plans = [vit.plans for vit in detector.modules() if isinstance(vit, ViT)]

    def replay(self, inputs: StepInputs) -> StepOutputs:
        """The outputs for inputs that fit the buffers, in memory of their own."""
        self.buffers.fill(inputs)
        self._launch()
        return map_tensors(self._outputs, torch.clone)


def capture(run: Run, inputs: StepInputs) -> tuple[Callable[[], None], StepOutputs]:
    """Captures a call in a CUDA graph.

    Args:
        run: the function.
        inputs: what it is called with, on a GPU; read again by each launch.

    Returns:
        What launches the graph, and the outputs that each launch writes.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(inputs.frame.images.device):
        side = torch.cuda.Stream()  # capture wants the first calls beside the default stream
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_CALLS):
                run(inputs)
        torch.cuda.current_stream().wait_stream(side)
        # A loader may pin memory in a thread of its own meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = run(inputs)
    return graph.replay, outputs


def _copy(source: object, target: object) -> None:
    for value, buffer in zip(tensors_of(source), tensors_of(target), strict=True):
        buffer.copy_(pinned(value, buffer.device), non_blocking=True)


def _check_capture(detector: nn.Module) -> None:
    for module in detector.modules():
        if isinstance(module, CameraSampling) and module.kernel == "gather":
            raise InputError(
                "cuda_graph=True cannot capture model.head.decoder.sampling_kernel='gather', whose "
                "shapes depend on what is seen: use 'grid_sample', or cuda_graph=False"
            )
    device = next(detector.parameters()).device
    if device.type != "cuda":
        raise InputError(
            f"cuda_graph=True needs the detector on a GPU, not on {device.type!r}: set "
            "cuda_graph=False, or move the detector"
        )
