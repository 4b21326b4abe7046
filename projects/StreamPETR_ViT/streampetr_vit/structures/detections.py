"""What the detector says about a frame.

Shape letters: B streams, K detections of a stream at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Detections of one frame, best first.

    Attributes:
        boxes: (n, 9) float32 in the lidar frame, gravity centre (see `structures.boxes3d`).
        scores: (n,) float32 in [0, 1], descending.
        labels: (n,) int64, index into the classes of the data set.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def to(self, device: str) -> Detections:
        """The same detections on another device."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))


@dataclass(frozen=True)
class PaddedDetections:
    """Detections of B streams in tensors whose shapes do not depend on what was found.

    Attributes:
        boxes, scores, labels: (B, K, 9), (B, K), (B, K), as in `Detections`.
        valid: (B, K) bool, False where there is no detection, whatever the other tensors say.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor

    def unpad(self) -> list[Detections]:
        """The valid detections of each stream, on the CPU; waits for the device once."""
        # One copy of all, as numbers: labels are small enough to be exact. Masked on the CPU: a
        # mask on the device would make it wait once for each stream.
        others = torch.stack((self.scores, self.labels, self.valid), dim=-1)  # (B, K, 3)
        packed = torch.cat((self.boxes, others), dim=-1).cpu()  # (B, K, 9 + 3), or 7 + 3
        return [
            Detections(row[:, :-3].contiguous(), row[:, -3].contiguous(), row[:, -2].long())
            for row in (stream[stream[:, -1] > 0] for stream in packed)
        ]
