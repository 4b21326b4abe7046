"""Objects as they appear in one picture: the targets of the auxiliary 2D head."""

from __future__ import annotations

from dataclasses import dataclass

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
