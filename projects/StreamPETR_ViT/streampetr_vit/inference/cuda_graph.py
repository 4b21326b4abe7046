"""A frame of inference as a CUDA graph: it is captured once and replayed with new inputs.

Shape letters: B streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone import ViT
from streampetr_vit.modeling.decoder.camera_sampling import CameraSampling
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Frame, PaddedDetections
from streampetr_vit.structures.tensors import map_tensors, pinned, tensors_of

logger = logging.getLogger(__name__)

_WARM_UP_CALLS = 3  # in the first calls libraries choose their kernels and allocate memory


@dataclass(frozen=True)
class StepInputs:
    """All that the device part of a frame reads, beside the weights.

    Attributes:
        frame: of B streams.
        memory: with as many entries as the head keeps, for all of B.
        rig_code: of the frame's rig, as the detector has made it.
    """

    frame: Frame
    memory: TemporalMemory
    rig_code: Any


@dataclass(frozen=True)
class StepOutputs:
    """What the device part of a frame gives: detections, and the memory after the frame."""

    detections: PaddedDetections
    memory: TemporalMemory


Run = Callable[[StepInputs], StepOutputs]


class GraphStep:
    """Runs frames through a graph that is captured for the shapes of the first one.

    Other shapes are captured anew, and the log says so. Later calls never write into what an
    earlier one returned.

    Args:
        run: the device part of a frame. Nothing that it reads may change, except its inputs and,
            in place, the weights.
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
            self._captured = None  # frees its memory before the next capture takes some
            shape = tuple(inputs.frame.images.shape)
            logger.info("capturing a CUDA graph of a frame with images %s", shape)
            self._captured = CapturedStep(self._run, inputs, self._detector)
        return self._captured.replay(inputs)


class InputBuffers:
    """Memory that a graph reads, filled with the inputs of one frame after the other.

    Args:
        inputs: of the first frame.
        device: of the buffers.
    """

    def __init__(self, inputs: StepInputs, device: torch.device) -> None:
        # A caller may be in inference mode now and not later; a tensor made in that mode could not
        # be written outside it.
        with torch.inference_mode(False):
            self.inputs = map_tensors(
                inputs, lambda value: torch.empty(value.shape, dtype=value.dtype, device=device)
            )
        self._code: Any = None
        self.fill(inputs)

    def fit(self, inputs: StepInputs) -> bool:
        """Whether inputs have the shapes and dtypes of the buffers."""
        pairs = zip(tensors_of(self.inputs), tensors_of(inputs), strict=True)
        return all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)

    def fill(self, inputs: StepInputs) -> None:
        """Copies inputs that fit, from the CPU or the device. Does not wait for the device."""
        _copy(inputs.frame, self.inputs.frame)
        _copy(inputs.memory, self.inputs.memory)
        # The largest of the three, and the same object for all frames of a rig.
        if inputs.rig_code is not self._code:
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
        # The graph reads the tensors of these plans. A ViT drops its plans when it meets other
        # sizes: the references keep their memory from being used again.
        self._plans = [vit.plans for vit in detector.modules() if isinstance(vit, ViT)]

    def replay(self, inputs: StepInputs) -> StepOutputs:
        """The outputs for inputs that fit the buffers."""
        self.buffers.fill(inputs)
        self._launch()
        return map_tensors(self._outputs, torch.clone)  # the next launch overwrites the originals


def capture(run: Run, inputs: StepInputs) -> tuple[Callable[[], None], StepOutputs]:
    """Captures a call in a CUDA graph.

    Args:
        run: the function to capture.
        inputs: its argument, on a GPU; each launch reads it again.

    Returns:
        A function that launches the graph, and the outputs that each launch writes.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(inputs.frame.images.device):
        # torch asks for warm-up calls on a stream other than the default one.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_CALLS):
                run(inputs)
        torch.cuda.current_stream().wait_stream(side)
        # Only calls of this thread count: a loader may pin memory in another thread meanwhile.
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
