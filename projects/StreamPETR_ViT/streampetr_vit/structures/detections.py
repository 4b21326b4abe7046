"""What the detector says about a frame.

Shape letters: B streams, K detections of a stream at most, R queries that the memory takes.
"""

from __future__ import annotations

from collections.abc import Callable
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
        queries: (n,) int64, query of the network that each comes from; None where that is unknown.
            A query may appear with several classes.
        lineages: (n,) int64, id of the track that the query's entry of the memory carries, or -1;
            None where that is unknown.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    queries: Tensor | None = None
    lineages: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Tensor) -> Detections:
        """Some of the detections, by a mask or by indexes."""
        return self._changed(lambda column: column[rows])

    def to(self, device: str) -> Detections:
        """The same detections on another device."""
        return self._changed(lambda column: column.to(device))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Detections:
        queries, lineages = (
            None if c is None else change(c) for c in (self.queries, self.lineages)
        )
        return Detections(
            change(self.boxes), change(self.scores), change(self.labels), queries, lineages
        )


@dataclass(frozen=True)
class PaddedDetections:
    """Detections of B streams in tensors whose shapes do not depend on what was found.

    Attributes:
        boxes, scores, labels: (B, K, 9), (B, K), (B, K), as in `Detections`.
        valid: (B, K) bool, False where there is no detection, whatever the other tensors say.
        queries, lineages: (B, K) int64, as in `Detections`.
        remembered: (B, R) int64, queries that became the newest entries of the memory, in their
            order.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    queries: Tensor
    lineages: Tensor
    remembered: Tensor

    def unpad(self) -> list[Detections]:
        """The valid detections of each stream, on the CPU; waits for the device once."""
        # One copy of all, as numbers: float64 holds every float32, and every id below 2^53. Masked
        # on the CPU: a mask on the device would make it wait once for each stream.
        others = (self.scores, self.labels, self.queries, self.lineages, self.valid)
        columns = torch.stack([other.double() for other in others], dim=-1)  # (B, K, 5)
        packed = torch.cat((self.boxes.double(), columns), dim=-1).cpu()  # (B, K, 9 + 5), or 7 + 5
        return [
            Detections(
                row[:, :-5].float(),
                row[:, -5].float(),
                *(row[:, column].long() for column in (-4, -3, -2)),
            )
            for row in (stream[stream[:, -1] > 0] for stream in packed)
        ]
