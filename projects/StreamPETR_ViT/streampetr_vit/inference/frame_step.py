"""One frame through a detector, with what is kept between frames that is no memory of them.

Shape letters: B streams.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from streampetr_vit.errors import InputError
from streampetr_vit.inference.cuda_graph import GraphStep, StepInputs, StepOutputs
from streampetr_vit.inference.detector import Detector
from streampetr_vit.modeling.ops.precision import DTYPES, autocast, cast_weights
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import CameraRig, Frame, PaddedDetections, packed_to
from streampetr_vit.structures.tensors import move_tensor, tensors_of


@dataclass(frozen=True)
class _KnownRig:
    """The last rig and its code, with the (height, width) in pixels that the code is for."""

    rig: CameraRig
    values: list[Tensor] | None  # copies of the rig's tensors; None if they are on a device
    image_size: tuple[int, int]
    code: Any


class FrameStep:
    """A pure function (frame, memory) -> (detections, memory), made fast for frames that are alike.

    It keeps the code of the last rig and the captured graph. The weights must not change
    meanwhile; call `forget_rig` if they do.

    Args:
        detector: in evaluation mode, on its device.
        precision: "float32", "bf16" or "fp16", of the network, whatever surrounds a call; None is
            what surrounds it.
        cuda_graph: capture the frame in a CUDA graph and replay it.
        cast: cast the backbone's weights to `precision` once, instead of in each frame. This
            changes the detector, see `cast_weights`.

    Raises:
        InputError: the precision is unknown or the device does not have it; a graph cannot be
            captured, see `GraphStep`; or the detector is not PyTorch's, and is asked for either.
    """

    def __init__(
        self,
        detector: Detector,
        precision: str | None = "float32",
        *,
        cuda_graph: bool = False,
        cast: bool = False,
    ) -> None:
        autocast(precision, detector.device.type)  # refuses an impossible precision now
        if not isinstance(detector, nn.Module):
            _check_plain(precision, cuda_graph, cast)
        self.detector, self._precision, self._cuda_graph = detector, precision, cuda_graph
        self._step = GraphStep(self._run, detector) if cuda_graph else self._run
        if cast and precision in ("bf16", "fp16"):
            assert isinstance(detector, nn.Module)
            cast_weights(detector.backbone, DTYPES[precision])
        self.forget_rig()

    def forget_rig(self) -> None:
        """Forgets what was computed from the weights and the last rig."""
        self._known: _KnownRig | None = None

    def __call__(
        self, frame: Frame, memory: TemporalMemory
    ) -> tuple[PaddedDetections, TemporalMemory]:
        """Detects, and returns before the device has done so.

        Args:
            frame: of B streams, on the CPU or on the detector's device. A rig on the CPU is
                compared with the last one by value. On the device, two rigs are the same only if
                they are the same Python object, which must not change.
            memory: of B streams, as `detector.empty_memory` or an earlier call gave it.

        Returns:
            Detections on the device, and the memory after the frame. Later calls change neither.

        Raises:
            InputError: the detector is in training mode.
        """
        if self.detector.training:
            raise InputError("the detector is in training mode: call detector.eval() first")
        # (B, M + new entries, ...) -> (B, M, ...): the entries that this frame drops are cut off
        # first, so that all frames have inputs of one shape, which a graph needs.
        memory = memory.map(lambda value: value[:, : self.detector.memory_length])
        outputs = self._step(StepInputs(frame, memory, self._code(frame)))
        return outputs.detections, outputs.memory

    @torch.no_grad()
    def _run(self, inputs: StepInputs) -> StepOutputs:
        detector = self.detector
        frame = inputs.frame
        images = move_tensor(frame.images, detector.device)
        frame = packed_to(replace(frame, images=images), detector.device)
        # Autocast keeps the weights that it casts. During a capture they would lie in the memory of
        # the graph, and must not outlive it.
        with autocast(self._precision, detector.device.type, cache_enabled=not self._cuda_graph):
            return StepOutputs(*detector.detect(frame, inputs.memory, inputs.rig_code))

    @torch.no_grad()
    def _code(self, frame: Frame) -> Any:
        """The code of the frame's rig, computed only if the rig is not the last one."""
        size = self.detector.padded_size(frame.image_size)
        known = self._known
        if known is None or known.image_size != size or not _is_same(known, frame.rig):
            self._known = None  # frees the old code before the new one takes memory
            values = tensors_of(frame.rig)
            on_cpu = all(value.device.type == "cpu" for value in values)
            # Copies, because the caller may write the next calibration into the same memory.
            copies = [value.clone() for value in values] if on_cpu else None
            rig = packed_to(frame.rig, self.detector.device)
            code = self.detector.encode_rig(rig, size)
            self._known = known = _KnownRig(frame.rig, copies, size, code)
        return known.code


def _is_same(known: _KnownRig, rig: CameraRig) -> bool:
    if known.values is None:
        return rig is known.rig  # to compare values on a device would wait for it
    pairs = zip(tensors_of(rig), known.values, strict=True)
    return all(new.device.type == "cpu" and torch.equal(new, old) for new, old in pairs)


def _check_plain(precision: str | None, cuda_graph: bool, cast: bool) -> None:
    """Raises InputError on what only PyTorch can do."""
    if cuda_graph or cast or precision not in (None, "float32"):
        raise InputError(
            f"exported graphs run as they were exported, not with precision={precision!r}, "
            f"cuda_graph={cuda_graph}, cast={cast}: leave these out"
        )
