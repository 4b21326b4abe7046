"""Bipartite matching of predictions with true boxes.

Shape letters: L decoder layers, B streams, Q queries, n true boxes of one stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from streampetr_vit.modeling.heads.box_coding import encode_boxes

_LOG_EPS = 1e-12
_BAD_COST = 100.0  # stands for NaN and infinite costs


@dataclass(frozen=True)
class HungarianMatcher:
    """Costs of pairs and the assignment of least total cost.

    Attributes:
        class_weight, box_weight: weights of the focal and the L1 cost.
        code_weights: 10 factors on the box codes.
        with_velocity: compare all ten codes instead of the first eight.
        alpha, gamma: of the focal cost.
    """

    class_weight: float = 2.0
    box_weight: float = 0.25
    code_weights: tuple[float, ...] = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    with_velocity: bool = False
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        # A configuration passes its own list type; plain floats are quick to read each step.
        object.__setattr__(self, "code_weights", tuple(map(float, self.code_weights)))

    @torch.no_grad()
    def cost(self, logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Cost of every pair.

        Args:
            logits: (..., Q, classes).
            codes: (..., Q, 10).
            boxes: (n, 9), gravity centre.
            labels: (n,) int64.

        Returns:
            (..., Q, n); NaN and infinities replaced by +-100.
        """
        p = logits[..., labels].sigmoid()  # (..., Q, n)
        positive = -(p + _LOG_EPS).log() * self.alpha * (1 - p).pow(self.gamma)
        negative = -(1 - p + _LOG_EPS).log() * (1 - self.alpha) * p.pow(self.gamma)
        used = 10 if self.with_velocity else 8
        weights = codes.new_tensor(self.code_weights[:used])
        target = encode_boxes(boxes)[:, :used] * weights
        distance = torch.cdist(codes[..., :used] * weights, target, p=1)
        cost = self.class_weight * (positive - negative) + self.box_weight * distance
        return cost.nan_to_num(nan=_BAD_COST, posinf=_BAD_COST, neginf=-_BAD_COST)

    def match(
        self, logits: Tensor, codes: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> Tensor:
        """Assigns true boxes to queries, for all layers and streams.

        Args:
            logits: (L, B, Q, classes).
            codes: (L, B, Q, 10).
            boxes, labels: per stream (n_b, 9) and (n_b,).

        Returns:
            (L, B, Q) int64 on the device of `logits`: index of the stream's box, or -1.
        """
        layers, streams, queries, _ = logits.shape
        assigned = torch.full((layers, streams, queries), -1)
        counts = [len(b) for b in boxes]
        # One copy to the host for the whole frame; scipy assigns there.
        costs = torch.cat(
            [
                self.cost(logits[:, b], codes[:, b], boxes[b], labels[b])  # (L, Q, n_b)
                for b in range(streams)
            ],
            dim=-1,
        ).cpu()
        for stream, cost in enumerate(costs.split(counts, dim=-1)):
            for layer in range(layers):
                rows, columns = linear_sum_assignment(cost[layer].numpy())
                assigned[layer, stream, torch.from_numpy(rows)] = torch.from_numpy(columns)
        return assigned.to(logits.device)
