"""What the detector says about one frame."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Detections of one frame, best first.

    Attributes:
        boxes: (n, 9) float32 in the lidar frame, gravity centre (see `structures.boxes3d`).
        scores: (n,) float32 in [0, 1], descending.
        labels: (n,) int64, index into `CLASS_NAMES`.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def to(self, device: str) -> Detections:
        """The same detections on another device."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))
