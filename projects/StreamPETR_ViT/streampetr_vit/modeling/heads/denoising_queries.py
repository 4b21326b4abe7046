"""The queries of denoising: what a head is given beside the image in training.

Shape letters: B streams, G groups, S slots of one group, n true boxes of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DenoisingQueries:
    """Noised queries of one frame. Slot g * S + k of a stream is its object k in group g.

    Attributes:
        reference_points: (B, G * S, 3), fractions of the point cloud range; 0 in unused slots.
        labels: (G * n,) int64, the background label where the noise was too large.
        boxes: (G * n, 9), the boxes to find, gravity centre.
        stream, slot: (G * n,) int64, where each of them is.
        groups: G.
    """

    reference_points: Tensor
    labels: Tensor
    boxes: Tensor
    stream: Tensor
    slot: Tensor
    groups: int

    @property
    def num_slots(self) -> int:
        """Number of denoising queries of a stream, unused slots included."""
        return self.reference_points.shape[1]

    def blocked(self, num_queries: int, num_keys: int) -> Tensor:
        """Self-attention mask: groups see neither each other nor are they seen by real queries.

        Returns:
            (G * S + num_queries, G * S + num_keys) bool, the denoising ones first; True = may not
            attend. Quirk: unused slots are not masked inside their group.
        """
        slots = self.num_slots
        device = self.reference_points.device
        # S slots of a group; without any box S is 0.
        group = torch.arange(slots, device=device) // max(slots // self.groups, 1)
        blocked = torch.zeros(
            slots + num_queries, slots + num_keys, dtype=torch.bool, device=device
        )
        # Real queries must not see true boxes: there are none in inference.
        blocked[slots:, :slots] = True
        # Nor may a group: the copies in the others are noised otherwise, and their mean is the box.
        blocked[:slots, :slots] = group[:, None] != group
        return blocked
