"""Query denoising: noised true boxes as extra queries that learn to find their way back.

Shape letters: B streams, G groups, n true boxes of a batch, S slots of one group, E channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.ops.geometry import normalize_to_range
from streampetr_vit.structures import packed_to


@dataclass(frozen=True)
class DenoisingNoise:
    """How true boxes are noised.

    Attributes:
        groups: noised copies G of every box.
        scale: noise as a fraction of half the box size.
        translation_m: added to half the box size before scaling.
        max_positive_distance: copies whose uniform draw in [-1, 1]^3 is longer are labelled
            background; above sqrt(3) none is.
    """

    groups: int = 10
    scale: float = 1.0
    translation_m: float = 0.0
    max_positive_distance: float = 0.75

    def make(
        self,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        point_cloud_range: Tensor,
        num_classes: int,
        uniform: Tensor | None = None,
    ) -> DenoisingQueries:
        """Draws the noised queries of one frame.

        Args:
            boxes, labels: as in `FrameTargets`.
            point_cloud_range: (6,) metres.
            num_classes: also the background label.
            uniform: (G * n, 3) in [0, 1), the random draw; drawn here if None.
        """
        counts = [len(b) for b in boxes]
        slots = max(counts, default=0)
        all_boxes, all_labels = torch.cat(list(boxes)), torch.cat(list(labels))
        device = all_boxes.device
        if uniform is None:
            uniform = torch.rand(self.groups * len(all_boxes), 3, device=device)
        noise = uniform * 2 - 1  # in [-1, 1)
        # (n, ...) -> (G * n, ...), group by group
        all_boxes, all_labels = all_boxes.repeat(self.groups, 1), all_labels.repeat(self.groups)
        reach = (all_boxes[:, 3:6] / 2 + self.translation_m) * self.scale
        centers = normalize_to_range(all_boxes[:, :3] + noise * reach, point_cloud_range)
        too_far = noise.norm(dim=1) > self.max_positive_distance

        # Streams have different numbers of boxes: box k of a stream takes slot k of each group, and
        # the slots of the streams with fewer boxes stay empty.
        stream = torch.repeat_interleave(torch.tensor(counts))
        within = torch.cat([torch.arange(count) for count in counts])
        stream, within = packed_to((stream, within), device)  # (n,) each
        stream = stream.repeat(self.groups)
        group = torch.arange(self.groups, device=device).repeat_interleave(len(within))
        slot = within.repeat(self.groups) + group * slots  # (G * n,), below G * S
        reference_points = centers.new_zeros(len(counts), self.groups * slots, 3)
        reference_points[stream, slot] = centers.clamp(0, 1)
        return DenoisingQueries(
            reference_points=reference_points,
            labels=all_labels.masked_fill(too_far, num_classes),
            boxes=all_boxes,
            stream=stream,
            slot=slot,
            groups=self.groups,
        )


def expected_positives(count: int, max_positive_distance: float) -> float:
    """Expected number of copies within the positive sphere, for `count` draws from a cube."""
    # Volume of the sphere over that of the cube [-1, 1]^3. Quirk: pi as in the published divisor.
    return count * 3.14159 / 6 * math.pow(max_positive_distance, 3)
