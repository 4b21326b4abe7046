"""Frame after frame of inference, with as little as possible beside the arithmetic.

For benchmarks, and for a loop of one's own; `evaluate` does not need it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone import ViT
from streampetr_vit.modeling.decoder.camera_sampling import CameraSampling
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.image.rig_code import RigCode, RigCodeCache
from streampetr_vit.modeling.ops.precision import AUTOCAST_DTYPES, autocast
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


class StreamingStep:
    """One frame of B streams after the other: detections on the device, and the next memory.

    It holds no stream: the caller owns the memory. What it keeps is the code of the last rig and,
    with `cuda_graph`, a captured graph and the buffers that the graph reads. A graph is captured
    for the shapes of the first frame, and anew for others (a line of the log says so); another rig
    only fills a buffer.

    What it returns is the caller's: later calls never write into it. (A graph always writes its
    results to the same place; they are copied from there.)

    Args:
        detector: in evaluation mode, on its device. Its weights may change in place between calls.
            With `cuda_graph` nothing else of it may, its device and precision included: make a new
            object then.
        precision: "float32", "bf16" or "fp16", whatever the ambient autocast.
        cuda_graph: capture the frame in a CUDA graph.
        cast: cast the backbone's weights to `precision` once, instead of in each frame; this
            changes the detector, see `cast_weights`.

    Raises:
        InputError: `cuda_graph` without a GPU, or with a sampling kernel that cannot be captured;
            a precision that is unknown or that the device does not have.
    """

    def __init__(
        self,
        detector: StreamPETR,
        precision: str = "float32",
        cuda_graph: bool = False,
        cast: bool = False,
    ) -> None:
        autocast(precision, detector.device.type)  # refuses an impossible precision now
        if cuda_graph:
            _check_capture(detector)
        self._detector, self._cuda_graph = detector, cuda_graph
        self._dtype = AUTOCAST_DTYPES[precision]
        self._codes = RigCodeCache()
        self._captured: CapturedStep | None = None
        if cast and self._dtype is not None:
            cast_weights(detector.backbone, self._dtype)

    def step(self, frame: Frame, memory: TemporalMemory) -> tuple[PaddedDetections, TemporalMemory]:
        """Detects in one frame, and returns before the device has done so.

        Args:
            frame: on the CPU or on the detector's device. A rig on the CPU is compared with the
                last one by value. Of one on the device only the same tensors count as the same
                rig: hand in the same `rig` with every frame, or its code is computed each time.
            memory: what the previous call returned, or `detector.empty_memory(B)`.

        Returns:
            Detections on the device, whose `unpad` waits for them, and the memory for the next
            frame.

        Raises:
            ValueError: the detector is in training mode.
        """
        detector = self._detector
        if detector.training:
            raise ValueError("the detector is in training mode: call detector.eval() first")
        size = detector.padded_size(frame.image_size)
        inputs = StepInputs(
            frame,
            # Without the entries that this frame drops, all memories have one shape.
            memory.map(lambda value: value[:, : detector.head.memory_length]),
            self._codes.get(detector.head, frame.rig, size),
        )
        outputs = self._replay(inputs) if self._cuda_graph else self._run(inputs)
        return outputs.detections, outputs.memory

    @torch.no_grad()
    def _run(self, inputs: StepInputs) -> StepOutputs:
        detector = self._detector
        # A cache of cast weights must not outlive the capture of a graph, in whose memory it lies.
        with torch.autocast(
            detector.device.type,
            self._dtype,
            self._dtype is not None,
            cache_enabled=not self._cuda_graph,
        ):
            frame = inputs.frame.to(detector.device)
            return StepOutputs(*detector.detect(frame, inputs.memory, inputs.rig_code))

    def _replay(self, inputs: StepInputs) -> StepOutputs:
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


def cast_weights(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Casts the weights and biases of linear and convolutional layers, in place.

    For inference under autocast to the same type, which would cast them in every call and gives the
    same bits with them. Norms and other parameters stay float32. What was cast cannot be trained or
    called in float32 any more.

    Args:
        backbone: in evaluation mode.
        dtype: torch.bfloat16 or torch.float16.

    Raises:
        ValueError: the backbone is in training mode.
    """
    if backbone.training:
        raise ValueError(
            "the backbone is in training mode: cast_weights is for inference, call eval()"
        )
    for layer in backbone.modules():
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


def _copy(source: object, target: object) -> None:
    for value, buffer in zip(tensors_of(source), tensors_of(target), strict=True):
        buffer.copy_(pinned(value, buffer.device), non_blocking=True)


def _check_capture(detector: StreamPETR) -> None:
    for module in detector.modules():
        if isinstance(module, CameraSampling) and module.kernel == "gather":
            raise InputError(
                "cuda_graph=True cannot capture model.head.decoder.sampling_kernel='gather', whose "
                "shapes depend on what is seen: use 'grid_sample', or cuda_graph=False"
            )
    if detector.device.type != "cuda":
        raise InputError(
            f"cuda_graph=True needs the detector on a GPU, not on {detector.device.type!r}: set "
            "cuda_graph=False, or move the detector"
        )
