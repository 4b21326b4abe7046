"""Objects as they appear in one picture: the targets of the auxiliary 2D head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Boxes2D:
    """Objects in one picture.

    Attributes:
        corners: (n, 4) float32 x1, y1, x2, y2 in pixels.
        centers: (n, 2) float32, projected 3D centres in pixels.
        labels: (n,) int64.
        depths: (n,) float32, camera z of the 3D centres in metres.
    """

    corners: Tensor
    centers: Tensor
    labels: Tensor
    depths: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> Boxes2D:
        return Boxes2D(self.corners[rows], self.centers[rows], self.labels[rows], self.depths[rows])

    def pin_memory(self) -> Boxes2D:
        """The same objects in page-locked memory; torch's loaders call it."""
        values = (self.corners, self.centers, self.labels, self.depths)
        return Boxes2D(*(value.pin_memory() for value in values))

    def to(self, device: torch.device | str) -> Boxes2D:
        """The same objects on another device; copies are asynchronous from pinned memory."""
        values = (self.corners, self.centers, self.labels, self.depths)
        return Boxes2D(*(value.to(device, non_blocking=True) for value in values))
