"""What a head computes from the cameras alone, and a cache of it for one who sees a stream.

Shape letters: B streams, N cameras, T image tokens, E channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from streampetr_vit.structures import CameraRig
from streampetr_vit.structures.tensors import map_tensors, tensors_of


@dataclass(frozen=True)
class RigCode:
    """What is the same for all frames of one calibration, image size and set of weights.

    In nuScenes the calibration includes the car's motion between the times of a camera and of the
    lidar, and changes from frame to frame; on a car with synchronised cameras it does not.

    Attributes:
        gain, offset: modulate the image features: (B, T, E) of tokens, camera by camera, or
            (B, N, E, 1, 1) of maps.
        position: (B, T, E), the 3D position embedding of the tokens; None for heads without.
    """

    gain: Tensor
    offset: Tensor
    position: Tensor | None = None


class RigEncoder(Protocol):
    """What `RigCodeCache` needs of a head."""

    @property
    def rig_parts(self) -> Sequence[nn.Module]:
        """The modules that `encode_rig` reads."""

    def encode_rig(self, rig: CameraRig, image_size: tuple[int, int]) -> RigCode:
        """The code of a rig on the device of the modules."""


@dataclass(frozen=True)
class _Entry:
    """A code and what it was made from."""

    rig: CameraRig  # a copy if it was on the CPU, else the caller's own tensors
    rig_versions: list[int] | None  # None for a copy
    image_size: tuple[int, int]
    weights: list[Tensor]
    weight_states: list[tuple]
    code: RigCode


class RigCodeCache:
    """Keeps the code of the last rig, and computes it anew where anything is another.

    Nothing here waits for a device. Rigs on the CPU are compared by value. Those on another device
    cannot be: there the same tensors, unchanged since, are the same rig, and others are another.
    """

    def __init__(self) -> None:
        self._entry: _Entry | None = None

    def clear(self) -> None:
        """Forgets the code, and frees its memory."""
        self._entry = None

    @torch.no_grad()
    def get(self, head: RigEncoder, rig: CameraRig, image_size: tuple[int, int]) -> RigCode:
        """The code of a rig.

        Args:
            head: whose code. Weights that were replaced, or changed in place, are noticed, but not
                what is written through `.data`: call `clear` then.
            rig: on the CPU or on the head's device.
            image_size: (height, width) in pixels of the padded pictures.

        Returns:
            On the head's device; the same object as before where nothing changed.
        """
        weights = [
            tensor for part in head.rig_parts for tensor in (*part.parameters(), *part.buffers())
        ]
        states = [_state(tensor) for tensor in weights]
        last = self._entry
        if (
            last is not None
            and last.image_size == image_size
            and _identical(last.weights, weights)
            and last.weight_states == states
            and _same_rig(last, rig)
        ):
            return last.code
        self._entry = None  # its memory may serve the new one
        on_host = all(value.device.type == "cpu" for value in tensors_of(rig))
        self._entry = _Entry(
            # A copy: the caller may write the next calibration into the same memory.
            rig=map_tensors(rig, torch.clone) if on_host else rig,
            rig_versions=None if on_host else [_version(value) for value in tensors_of(rig)],
            image_size=image_size,
            weights=weights,
            weight_states=states,
            code=head.encode_rig(rig.to(weights[0].device), image_size),
        )
        return self._entry.code


def _same_rig(last: _Entry, rig: CameraRig) -> bool:
    before, now = tensors_of(last.rig), tensors_of(rig)
    if any(value.is_inference() and value.device.type != "cpu" for value in now):
        return False  # such tensors do not count their changes
    if last.rig_versions is not None:
        return _identical(before, now) and last.rig_versions == [_version(x) for x in now]
    return all(
        value.device.type == "cpu" and torch.equal(value, old)
        for value, old in zip(now, before, strict=True)
    )


def _identical(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _version(tensor: Tensor) -> int:
    """Counts in-place changes; tensors made in inference mode do not."""
    return 0 if tensor.is_inference() else tensor._version


def _state(tensor: Tensor) -> tuple:
    """Changes where a tensor is written to, moved or cast."""
    return _version(tensor), tensor.data_ptr(), tensor.device, tensor.dtype
