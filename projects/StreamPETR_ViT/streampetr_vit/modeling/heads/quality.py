"""How well a query knows its box, beside the class: what ranks two detections of equal score.

Source: Sparse4D v3 (arXiv 2311.11722), quality estimation.
Shape letters: B streams, Q queries, L decoder layers, E channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streampetr_vit.modeling.ops.linear import Linear

CENTERNESS, YAWNESS = 0, 1  # places in the last dimension of `QualityBranch`'s logits


class QualityBranch(nn.Module):
    """From the states of queries and their positions to two logits.

    The centerness tells how near the centre of the box is to that of the object; the yawness
    whether the box looks forward or backward.

    Args:
        dim: channels E.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [Linear(dim, dim), nn.ReLU(), nn.LayerNorm(dim)]
        self.layers = nn.Sequential(*layers)
        self.logits = Linear(dim, 2)
        # Every quality is 1/2 at first: weights that were trained without a branch detect the same,
        # in the same order, until it has learned.
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def forward(self, states: Tensor, position: Tensor) -> Tensor:
        """Logits (L, B, Q, 2) of states (L, B, Q, E) and positions (B, Q, E)."""
        return self.logits(self.layers(states + position))


def centerness_of(quality: Tensor) -> Tensor:
    """(B, Q) in [0, 1] from the logits (B, Q, 2) of one layer."""
    return torch.sigmoid(quality[..., CENTERNESS])
