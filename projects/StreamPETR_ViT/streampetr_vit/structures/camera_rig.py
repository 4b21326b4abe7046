"""Calibration of a surround-view rig.

Shape letters: B streams in the batch, N cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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

    def to(self, device: torch.device | str) -> CameraRig:
        """The same rig on another device, see `move_tensor`."""
        return map_tensors(self, lambda value: move_tensor(value, device))
