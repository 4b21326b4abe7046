"""Query denoising: noised true boxes as extra queries that learn to find their way back.

Shape letters: B streams, n true boxes of a batch, k slots of one copy of a stream's boxes, G groups
of one copy each, g ray groups of R copies each, T = G + g R copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from streampetr_vit.modeling.criterion.ray_denoising import RayDenoising, RayDraws, Views
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.ops.geometry import normalize_to_range
from streampetr_vit.structures import packed_to

_CROWDED = 100  # true boxes of a crowded frame
# That the attention mask of such a frame may take at a byte for each pair of denoising queries. The
# scores of the attention take several times as much.
_MOST_MASK_GIB = 1.0


@dataclass(frozen=True)
class DenoisingNoise:
    """How true boxes are noised.

    Attributes:
        groups: noised copies G of every box.
        scale: noise as a fraction of half the box size.
        translation_m: added to half the box size before scaling.
        max_positive_distance: copies whose uniform draw in [-1, 1]^3 is longer are labelled
            background; above sqrt(3) none is.
        ray: further copies along camera rays.
    """

    groups: int = 10
    scale: float = 1.0
    translation_m: float = 0.0
    max_positive_distance: float = 0.75
    ray: RayDenoising = field(default_factory=RayDenoising)

    def __post_init__(self) -> None:
        if self.copies < 1 or self.groups < 0:
            raise ValueError(
                f"groups ({self.groups}) must be at least 1, or 0 beside ray.groups "
                f"({self.ray.groups}) of at least 1; model.denoising=None switches denoising off"
            )
        gib = (self.copies * _CROWDED) ** 2 / 2**30
        if gib > _MOST_MASK_GIB:
            most = int((_MOST_MASK_GIB * 2**30) ** 0.5 / _CROWDED)
            raise ValueError(
                f"groups ({self.groups}) + ray.groups ({self.ray.groups}) x ray.num_points "
                f"({self.ray.num_points}) are {self.copies} copies of every box: with {_CROWDED} "
                f"boxes in a frame the attention mask alone takes {gib:.1f} GiB of at most "
                f"{_MOST_MASK_GIB:g} GiB; use {most} copies or fewer"
            )

    @property
    def copies(self) -> int:
        """Copies T of every box."""
        return self.groups + self.ray.copies

    def make(
        self,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        point_cloud_range: Tensor,
        num_classes: int,
        uniform: Tensor | None = None,
        views: Views | None = None,
        ray_draws: RayDraws | None = None,
    ) -> DenoisingQueries:
        """Draws the noised queries of one frame.

        Args:
            boxes, labels: as in `FrameTargets`.
            point_cloud_range: (6,) metres.
            num_classes: also the background label.
            uniform: (G * n, 3) in [0, 1), the random draw; drawn here if None.
            views: of the frame; rays need them.
            ray_draws: drawn here if None, after `uniform`.
        """
        counts = [len(b) for b in boxes]
        slots, total = max(counts, default=0), sum(counts)
        all_boxes, all_labels = torch.cat(list(boxes)), torch.cat(list(labels))
        device = all_boxes.device
        # Streams have different numbers of boxes: box k of a stream takes slot k of each copy, and
        # the slots of the streams with fewer boxes stay empty.
        stream = torch.repeat_interleave(torch.tensor(counts))
        within = torch.cat([torch.arange(count) for count in counts])
        stream, within = packed_to((stream, within), device)  # (n,) each
        if uniform is None:
            uniform = torch.rand(self.groups * total, 3, device=device)
        points_m, background = self._noised(all_boxes, uniform)
        # One copy of all boxes after the other: (T * n,) each.
        copy = torch.arange(self.copies, device=device).repeat_interleave(total)
        box = torch.arange(total, device=device).repeat(self.copies)
        if self.ray.groups:
            if views is None:
                raise ValueError("denoising along rays needs the views of the frame's cameras")
            draws = ray_draws or self.ray.draw(total)
            on_rays_m, positive, seen = self.ray.points(draws, all_boxes, stream, views)
            points_m = torch.cat((points_m, on_rays_m))
            background = torch.cat((background, ~positive))
            if self.ray.drop_unseen:
                # As indexes, not as a mask: then the device is waited for once.
                kept = ((copy < self.groups) | seen[box]).nonzero().squeeze(1)
                copy, box = copy[kept], box[kept]
                points_m, background = points_m[kept], background[kept]

        slot = within[box] + copy * slots  # below T * k
        centers = normalize_to_range(points_m, point_cloud_range)
        reference_points = centers.new_zeros(len(counts), self.copies * slots, 3)
        reference_points[stream[box], slot] = centers.clamp(0, 1)
        return DenoisingQueries(
            reference_points=reference_points,
            labels=all_labels[box].masked_fill(background, num_classes),
            boxes=all_boxes[box],
            stream=stream[box],
            slot=slot,
            groups=self.groups,
            ray_groups=self.ray.groups,
            ray_points=self.ray.num_points,
        )

    def _noised(self, boxes: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The ordinary copies: (G * n, 3) metres, and (G * n,) bool, which are background."""
        noise = uniform * 2 - 1  # in [-1, 1)
        boxes = boxes.repeat(self.groups, 1)  # group by group
        reach = (boxes[:, 3:6] / 2 + self.translation_m) * self.scale
        return boxes[:, :3] + noise * reach, noise.norm(dim=1) > self.max_positive_distance


def expected_positives(count: int, max_positive_distance: float) -> float:
    """Expected number of copies within the positive sphere, for `count` draws from a cube."""
    # Volume of the sphere over that of the cube [-1, 1]^3. Quirk: pi as in the published divisor.
    return count * 3.14159 / 6 * math.pow(max_positive_distance, 3)
