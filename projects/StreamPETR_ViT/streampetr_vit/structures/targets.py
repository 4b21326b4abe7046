"""What is true in a frame: the targets of training.

Shape letters: B streams, N cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from streampetr_vit.structures.boxes2d import Boxes2D


@dataclass(frozen=True)
class FrameTargets:
    """What is true in one frame of B streams.

    Attributes:
        boxes, labels: per stream (n_b, 9), gravity centre in the lidar frame, and (n_b,) int64.
        boxes2d: per picture, B * N, camera fastest; None if the samples have none.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    boxes2d: list[Boxes2D] | None = None

    @staticmethod
    def collate(samples: Sequence[dict[str, Any]]) -> FrameTargets:
        """Takes the targets out of the mapper's samples, one per stream; copies nothing."""
        boxes2d = None
        if all("boxes2d" in sample for sample in samples):
            boxes2d = [boxes for sample in samples for boxes in sample["boxes2d"]]
        return FrameTargets(
            boxes=[sample["gt_boxes"] for sample in samples],
            labels=[sample["gt_labels"] for sample in samples],
            boxes2d=boxes2d,
        )
