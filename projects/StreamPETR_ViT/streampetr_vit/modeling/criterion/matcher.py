"""Costs of pairing predictions with true boxes.

Shape letters: L decoder layers, B streams, Q queries, n true boxes of one stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.modeling.criterion.losses import constant, finite_costs, focal_cost
from streampetr_vit.modeling.heads.box_coding import CODE_SIZE, encode_boxes

CODE_WEIGHTS = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # as published: x and y double


@dataclass(frozen=True)
class HungarianMatcher:
    """Costs whose least total assigns true boxes to queries.

    Attributes:
        class_weight, box_weight: weights of the focal and the L1 cost.
        code_weights: 10 factors on the box codes.
        with_velocity: compare all ten codes instead of the first eight.
        alpha, gamma: see `focal_cost`.
    """

    class_weight: float = 2.0
    box_weight: float = 0.25
    code_weights: tuple[float, ...] = CODE_WEIGHTS
    with_velocity: bool = False
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        # A configuration passes its own list type; plain floats are quick to read each step.
        object.__setattr__(self, "code_weights", tuple(map(float, self.code_weights)))

    @torch.no_grad()
    def cost(self, logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Costs (..., Q, n), finite, of every pair.

        Args:
            logits, codes: (..., Q, classes), (..., Q, 10).
            boxes, labels: (n, 9), gravity centre, and (n,) int64.
        """
        of_class = focal_cost(logits[..., labels], self.alpha, self.gamma)  # (..., Q, n)
        used = CODE_SIZE if self.with_velocity else CODE_SIZE - 2
        weights = constant(self.code_weights[:used], codes)
        target = encode_boxes(boxes)[:, :used] * weights
        distance = torch.cdist(codes[..., :used] * weights, target, p=1)  # (..., Q, n)
        return finite_costs(self.class_weight * of_class + self.box_weight * distance)

    def costs(
        self, logits: Tensor, codes: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> list[Tensor]:
        """Per stream (L, Q, n_b), for `assign`, from all layers' (L, B, Q, ...) predictions.

        `boxes` and `labels` are as in `FrameTargets`.
        """
        # One table for the whole batch: pairs across streams are wasted arithmetic, but a loop
        # over streams would wait for many more small kernels.
        table = self.cost(logits, codes, torch.cat(list(boxes)), torch.cat(list(labels)))
        by_stream = table.split([len(b) for b in boxes], dim=-1)
        # (L, B, Q, n of all) -> per stream (L, B, Q, n_b) -> (L, Q, n_b)
        return [cost[:, stream] for stream, cost in enumerate(by_stream)]
