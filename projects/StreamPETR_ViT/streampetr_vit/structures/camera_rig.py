"""One moment of a surround-view rig: pictures, calibration, pose and time.

Shape letters: B streams in the batch, N cameras, H W image height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

CAMERA_NAMES = (
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_FRONT_LEFT",
    "CAM_BACK",
    "CAM_BACK_LEFT",
    "CAM_BACK_RIGHT",
)

T = TypeVar("T")


def map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """Applies a function to every tensor of a value.

    Args:
        value: a tensor, None, or a dataclass whose fields are such values.
        function: of a tensor.

    Returns:
        A new value of the same type; None stays None.
    """

    def apply(part: Any) -> Any:
        if part is None or isinstance(part, Tensor):
            return part if part is None else function(part)
        return replace(part, **{f.name: apply(getattr(part, f.name)) for f in fields(part)})

    return apply(value)


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors of a value that `map_tensors` takes, in the order of the fields."""
    if value is None or isinstance(value, Tensor):
        return [] if value is None else [value]
    return [tensor for f in fields(value) for tensor in tensors_of(getattr(value, f.name))]


def pinned(value: Tensor, device: torch.device | str) -> Tensor:
    """The tensor as it must lie to be copied to a device without waiting for it.

    Args:
        value: anywhere.
        device: where it will be copied to.

    Returns:
        A copy in pinned memory on the way from pageable memory to a GPU, else `value` itself.
    """
    on_the_way_to_gpu = value.device.type == "cpu" and torch.device(device).type == "cuda"
    return value.pin_memory() if on_the_way_to_gpu and not value.is_pinned() else value


def move_tensor(value: Tensor, device: torch.device | str) -> Tensor:
    """Copies to a device without waiting for what the device is doing.

    Args:
        value: anywhere.
        device: where to.

    Returns:
        The tensor there, or `value` itself where it is there already.
    """
    return pinned(value, device).to(device, non_blocking=True)


@dataclass(frozen=True)
class CameraRig:
    """Calibration of the N cameras, for the images that the network sees.

    Attributes:
        lidar_to_image: (B, N, 4, 4) float32; divide by the third row for pixels (pixel centres at
            integer coordinates). Includes every image and scene augmentation.
        intrinsics: (B, N, 4, 4) float32, 3x3 camera matrix after the image augmentation.
        lidar_to_camera: (B, N, 4, 4) float32, as calibrated (no scene augmentation).
    """

    lidar_to_image: Tensor
    intrinsics: Tensor
    lidar_to_camera: Tensor

    def to(self, device: torch.device | str) -> CameraRig:
        """The same rig on another device, see `move_tensor`."""
        return map_tensors(self, lambda value: move_tensor(value, device))


@dataclass(frozen=True)
class Frame:
    """One frame of B streams.

    Attributes:
        images: (B, N, 3, H, W), uint8 RGB, or float32 already normalised.
        rig: the cameras.
        lidar_to_global: (B, 4, 4) float32. Not rigid under scene augmentation (scale).
        global_to_lidar: (B, 4, 4) float32, its inverse.
        timestamp_s: (B,) float64, seconds since the epoch at the lidar's time.
        continues_stream: (B,) bool; False where a stream starts anew and its memory is void.
    """

    images: Tensor
    rig: CameraRig
    lidar_to_global: Tensor
    global_to_lidar: Tensor
    timestamp_s: Tensor
    continues_stream: Tensor

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images in pixels."""
        return tuple(self.images.shape[-2:])  # type: ignore[return-value]

    def to(self, device: torch.device | str) -> Frame:
        """The same frame on another device, see `move_tensor`."""
        return map_tensors(self, lambda value: move_tensor(value, device))

    @staticmethod
    def collate(samples: Sequence[dict[str, Any]]) -> Frame:
        """Stacks the mapper's sample dicts (one per stream) into a frame."""

        def stack(key: str) -> Tensor:
            return torch.stack([sample[key] for sample in samples])

        return Frame(
            images=stack("images"),
            rig=CameraRig(stack("lidar_to_image"), stack("intrinsics"), stack("lidar_to_camera")),
            lidar_to_global=stack("lidar_to_global"),
            global_to_lidar=stack("global_to_lidar"),
            timestamp_s=stack("timestamp_s"),
            continues_stream=stack("continues_stream"),
        )
