"""The queries of denoising: what a head is given beside the image in training.

Shape letters: B streams, k slots of one copy of a stream's true boxes, G groups of one copy each, g
ray groups of R copies each, S = (G + g R) k slots, n noised boxes of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DenoisingQueries:
    """Noised queries of one frame. Slot t * k + i of a stream is its object i in copy t.

    Attributes:
        reference_points: (B, S, 3), fractions of the point cloud range; 0 in unused slots.
        labels: (n,) int64, the background label where a copy is too far from its box.
        boxes: (n, 9), the boxes to find, gravity centre.
        stream, slot: (n,) int64, where each of them is.
        groups: G; the first copies.
        ray_groups, ray_points: g and R; after those, group by group.
    """

    reference_points: Tensor
    labels: Tensor
    boxes: Tensor
    stream: Tensor
    slot: Tensor
    groups: int
    ray_groups: int = 0
    ray_points: int = 1

    @property
    def num_slots(self) -> int:
        """Number of denoising queries of a stream, unused slots included."""
        return self.reference_points.shape[1]

    def blocked(self, num_queries: int, num_keys: int) -> Tensor:
        """Self-attention mask: groups see neither each other nor are they seen by real queries.

        Returns:
            (S + num_queries, S + num_keys) bool, the denoising ones first; True = may not
            attend. Quirk: unused slots are not masked inside their group.
        """
        slots = self.num_slots
        device = self.reference_points.device
        copies = self.groups + self.ray_groups * self.ray_points
        # A copy has k slots; without any box there are none.
        copy = torch.arange(slots, device=device) // max(slots // copies, 1)
        # The points of a ray compete, as the detections along it will: they are one group.
        ray = (copy - self.groups).div(self.ray_points, rounding_mode="floor")
        group = torch.where(copy < self.groups, copy, self.groups + ray)
        blocked = torch.zeros(
            slots + num_queries, slots + num_keys, dtype=torch.bool, device=device
        )
        # Real queries must not see true boxes: there are none in inference.
        blocked[slots:, :slots] = True
        # Nor may a group: the copies in the others are noised otherwise, and their mean is the box.
        blocked[:slots, :slots] = group[:, None] != group
        return blocked
