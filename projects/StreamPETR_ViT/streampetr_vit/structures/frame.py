"""One moment of a surround-view rig: pictures, calibration, pose and time.

Shape letters: B streams in the batch, N cameras, H W image height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.structures.sample import Sample
from streampetr_vit.structures.tensors import map_tensors, move_tensor


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


@dataclass(frozen=True)
class Frame:
    """One frame of B streams.

    Attributes:
        images: (B, N, 3, H, W), uint8 RGB, or float32 already normalised.
        rig: the cameras.
        lidar_to_global: (B, 4, 4) float64: global coordinates may be thousands of kilometres. Not
            rigid under scene augmentation (scale).
        global_to_lidar: (B, 4, 4) float64, its inverse.
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
    def collate(samples: Sequence[Sample], images_to: torch.device | str = "cpu") -> Frame:
        """Stacks samples on the CPU, one per stream; only their images move, to `images_to`."""
        # They travel one by one and are stacked there: stacked on the CPU they would no longer be
        # in page-locked memory, and their copy would wait. `packed_to` moves the rest at once.
        images = [sample.images.to(images_to, non_blocking=True) for sample in samples]

        def stack(name: str) -> Tensor:
            return torch.stack([getattr(sample, name) for sample in samples])

        return Frame(
            images=torch.stack(images),  # B times (N, 3, H, W) -> (B, N, 3, H, W)
            # A caller's matrices are often float64, as numpy makes them.
            rig=CameraRig(
                lidar_to_image=stack("lidar_to_image").float(),
                intrinsics=stack("intrinsics").float(),
                lidar_to_camera=stack("lidar_to_camera").float(),
            ),
            lidar_to_global=stack("lidar_to_global").double(),
            global_to_lidar=stack("global_to_lidar").double(),
            timestamp_s=stack("timestamp_s"),
            continues_stream=stack("continues_stream"),
        )
