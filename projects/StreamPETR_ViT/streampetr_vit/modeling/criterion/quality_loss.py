"""Losses of what a head says about its own boxes.

Shape letters: L decoder layers, K pairs of queries and true boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_vit.modeling.criterion.losses import constant, gaussian_focal_loss
from streampetr_vit.modeling.heads.quality import CENTERNESS, YAWNESS


@dataclass(frozen=True)
class QualityLoss:
    """Losses of the two logits of `QualityBranch`, for queries that are paired with a true box.

    The centerness shall be exp(-distance of the centres in metres); the yawness 1 where the box
    looks to the same side as the object, else 0.

    Attributes:
        centerness_weight, yawness_weight: factors of the losses.
        symmetric_labels: classes whose objects look the same after half a turn: either side is
            right. nuScenes scores the heading of barriers so.

    Source: Sparse4D v3 (arXiv 2311.11722).
    """

    centerness_weight: float = 1.0
    yawness_weight: float = 1.0
    symmetric_labels: Sequence[int] = ()

    def __post_init__(self) -> None:
        # A configuration passes its own list type; see `DetectionLoss`.
        object.__setattr__(self, "symmetric_labels", tuple(map(int, self.symmetric_labels)))

    def sums(self, quality: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor) -> list[Tensor]:
        """Weighted (L,) sums of the losses of centerness and yawness over K pairs.

        Args:
            quality: (L, K, 2) logits of the queries of the pairs.
            codes: (L, K, 10) of the same queries.
            boxes: (L, K, 9) true boxes, gravity centre. Those with a centre, size or yaw that is
                not finite do not count.
            labels: (L, K) int64 of the true boxes.
        """
        counts = boxes[..., :7].isfinite().all(-1)
        centerness, heading = self._targets(codes, boxes, labels)
        of_center = F.binary_cross_entropy_with_logits(
            quality[..., CENTERNESS],
            torch.where(counts, centerness, 0),  # the gradient of a NaN is NaN, whatever follows
            reduction="none",
        )
        of_yaw = gaussian_focal_loss(quality[..., YAWNESS].sigmoid(), heading)
        return [
            self.centerness_weight * torch.where(counts, of_center, 0).sum(-1),
            self.yawness_weight * torch.where(counts, of_yaw, 0).sum(-1),
        ]

    @torch.no_grad()
    def _targets(self, codes: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Centerness and yawness (L, K) that the queries shall say of their boxes."""
        distance_m = (codes[..., :3] - boxes[..., :3]).norm(dim=-1)
        sin, cos, yaw = codes[..., 6], codes[..., 7], boxes[..., 6]
        # cos(predicted - true) but for the length of (sin, cos), which does not change its sign.
        same_side = sin * yaw.sin() + cos * yaw.cos()
        symmetric = torch.isin(labels, constant(self.symmetric_labels, labels))
        same_side = torch.where(symmetric, same_side.abs(), same_side)
        return (-distance_m).exp(), (same_side > 0).to(codes.dtype)
