"""Frame after frame through a detector: the one place that remembers between frames of inference.

Shape letters: B streams, each of its own scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from streampetr_vit.inference.cuda_graph import GraphStep, StepInputs, StepOutputs
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.image.rig_code import RigCode
from streampetr_vit.modeling.ops.precision import DTYPES, autocast
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import (
    CameraRig,
    Detections,
    Frame,
    PaddedDetections,
    Sample,
    packed_to,
)
from streampetr_vit.structures.tensors import move_tensor, tensors_of


@dataclass(frozen=True)
class _KnownRig:
    """The last rig and its code."""

    rig: CameraRig
    values: list[Tensor] | None  # copies of its tensors if they are on the CPU
    image_size: tuple[int, int]
    code: RigCode


class Stream:
    """B streams of frames through a detector, with all that is kept from frame to frame.

    That is the memory, the place in the scene, the code of the last rig, and the captured graph.
    The weights must not change while a stream runs; `reset` forgets all that was computed from
    them.

    Args:
        detector: in evaluation mode, on its device.
        precision: "float32", "bf16" or "fp16", of the network.
        memory: False makes every frame a stream of its own.
        cuda_graph: capture the frame in a CUDA graph and replay it.
        cast: cast the backbone's weights to `precision` once, instead of in each frame. This
            changes the detector, see `cast_weights`.

    Raises:
        InputError: a precision that is unknown or that the device does not have; `cuda_graph` where
            there can be none, see `GraphStep`.
    """

    def __init__(
        self,
        detector: StreamPETR,
        precision: str = "float32",
        *,
        memory: bool = True,
        cuda_graph: bool = False,
        cast: bool = False,
    ) -> None:
        autocast(precision, detector.device.type)  # refuses an impossible precision now
        self._detector, self._precision, self._remembers = detector, precision, memory
        self._cuda_graph = cuda_graph
        self._step = GraphStep(self._run, detector) if cuda_graph else self._run
        if cast and precision != "float32":
            cast_weights(detector.backbone, DTYPES[precision])
        self.reset()

    def reset(self) -> None:
        """Forgets everything, as if no frame had been seen."""
        self.memory: TemporalMemory | None = None  # after the last frame
        self._position: list[tuple[str, float]] = []  # (scene token, seconds) of each row
        self._known: _KnownRig | None = None

    def __call__(self, samples: Sequence[Sample]) -> list[Detections]:
        """Detects in the next sample of each stream; waits for the boxes.

        A row whose scene is another than in the call before starts anew, and so do all where the
        number of rows changes.

        Args:
            samples: B of them, on the CPU.

        Returns:
            B detections on the CPU, in the lidar frame of their sample.

        Raises:
            ValueError: a sample is earlier than the one before it in the same scene; the detector
                is in training mode.
        """
        position = [(s.scene_token, float(s.timestamp_s)) for s in samples]
        continues = self._continues(position)
        if not all(continues):
            self._known = None  # a new scene may have another calibration, or other weights
        frame = Frame.collate(samples, images_to=self._detector.device)
        found = self.push(replace(frame, continues_stream=torch.tensor(continues)))
        self._position = position
        return found.unpad()

    def push(self, frame: Frame) -> PaddedDetections:
        """Detects in the next frame, and returns before the device has done so.

        Args:
            frame: of B streams, on the CPU or on the detector's device. Its `continues_stream` is
                followed, as far as there is something to continue. A rig on the CPU is compared
                with the last one by value. One on the device cannot be without waiting: the same
                object counts as the same rig, and must not change.

        Returns:
            Detections on the device, whose `unpad` waits for them. Later frames do not change them.

        Raises:
            ValueError: the detector is in training mode.
        """
        detector = self._detector
        if detector.training:
            raise ValueError("the detector is in training mode: call detector.eval() first")
        memory, rows = self.memory, len(frame.timestamp_s)
        if memory is None or len(memory.embedding) != rows:
            memory = detector.empty_memory(rows)
            anew = torch.zeros_like(frame.continues_stream)
            frame = replace(frame, continues_stream=anew)
        # Without the entries that this frame drops, all memories have one shape.
        memory = memory.map(lambda value: value[:, : detector.head.memory_length])
        outputs = self._step(StepInputs(frame, memory, self._code(frame)))
        self.memory = outputs.memory if self._remembers else None
        return outputs.detections

    @torch.no_grad()
    def _run(self, inputs: StepInputs) -> StepOutputs:
        detector = self._detector
        frame = inputs.frame
        images = move_tensor(frame.images, detector.device)
        frame = packed_to(replace(frame, images=images), detector.device)
        # Weights that autocast keeps must not outlive a capture, in whose memory they would lie.
        with autocast(self._precision, detector.device.type, cache_enabled=not self._cuda_graph):
            return StepOutputs(*detector.detect(frame, inputs.memory, inputs.rig_code))

    @torch.no_grad()
    def _code(self, frame: Frame) -> RigCode:
        """The code of the frame's rig, computed if it is another than the last one."""
        size = self._detector.padded_size(frame.image_size)
        known = self._known
        if known is None or known.image_size != size or not _is_same(known, frame.rig):
            self._known = None  # its memory may serve the new one
            values = tensors_of(frame.rig)
            on_cpu = all(value.device.type == "cpu" for value in values)
            # Copies: the caller may write the next calibration into the same memory.
            copies = [value.clone() for value in values] if on_cpu else None
            rig = packed_to(frame.rig, self._detector.device)
            code = self._detector.head.encode_rig(rig, size)
            self._known = known = _KnownRig(frame.rig, copies, size, code)
        return known.code

    def _continues(self, position: list[tuple[str, float]]) -> list[bool]:
        """Whether each row goes on in the scene of the call before."""
        if len(position) != len(self._position):
            return [False] * len(position)
        flags = []
        for (scene, time), (last_scene, last_time) in zip(position, self._position, strict=True):
            if self._remembers and scene == last_scene and time < last_time:
                raise ValueError(
                    f"frames of scene {scene} are out of order: timestamp_s {time:.6f} comes after "
                    f"{last_time:.6f}; sort them by time, or call reset() to start over"
                )
            flags.append(scene == last_scene)
        return flags


def _is_same(known: _KnownRig, rig: CameraRig) -> bool:
    if known.values is None:
        return rig is known.rig
    pairs = zip(tensors_of(rig), known.values, strict=True)
    return all(new.device.type == "cpu" and torch.equal(new, old) for new, old in pairs)


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
