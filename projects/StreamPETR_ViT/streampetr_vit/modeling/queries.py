"""What a head is given beside the image, and what it gives back.

Shape letters: B streams, Q learned queries, P propagated queries, G denoising groups, S denoising
slots of one group, n true boxes of a batch, L decoder layers, E channels, I images of a batch
(camera fastest), T tokens of one image (row by row), M cells of a feature pyramid of one image
(finest level first, row by row).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.modeling.ops.boxes2d import corners_from_cell_codes


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

        Args:
            num_queries: queries after the denoising ones.
            num_keys: keys after the denoising ones (queries and memory).

        Returns:
            (G * S + num_queries, G * S + num_keys) bool, True = may not attend. Quirk: unused
            slots are not masked inside their group.
        """
        slots = self.num_slots
        device = self.reference_points.device
        group = torch.arange(slots, device=device) // max(slots // self.groups, 1)
        blocked = torch.zeros(
            slots + num_queries, slots + num_keys, dtype=torch.bool, device=device
        )
        blocked[slots:, :slots] = True
        blocked[:slots, :slots] = group[:, None] != group
        return blocked


@dataclass(frozen=True)
class HeadOutput:
    """Predictions of every decoder layer.

    Attributes:
        logits: (L, B, Q + P, classes).
        codes: (L, B, Q + P, 10), see `box_coding`; metres.
        states: (L, B, Q + P, E) decoder outputs.
        denoising_logits, denoising_codes: (L, B, G * S, ...) of the denoising queries; None
            without any.
    """

    logits: Tensor
    codes: Tensor
    states: Tensor
    denoising_logits: Tensor | None = None
    denoising_codes: Tensor | None = None


@dataclass(frozen=True)
class ImageOutput:
    """Predictions of a 2D head, one hypothesis per token.

    Attributes:
        logits: (I, T, classes).
        boxes: (I, T, 4) cx, cy, width, height as fractions of the padded image's sides.
        centers: (I, T, 2) projected 3D centres x, y, the same fractions.
        centerness: (I, T, 1) logits.
    """

    logits: Tensor
    boxes: Tensor
    centers: Tensor
    centerness: Tensor


@dataclass(frozen=True)
class YOLOXOutput:
    """Predictions of the 2D head of a feature pyramid, one hypothesis per cell.

    Attributes:
        logits: (I, M, classes).
        box_codes: (I, M, 4), see `corners_from_cell_codes`.
        objectness: (I, M, 1) logits.
        center_offsets: (I, M, 2) of the projected 3D centre x, y from the prior, in strides.
        priors: (M, 2) top left corners x, y of the cells in pixels.
        strides: (M,) pixels of a cell's side.
    """

    logits: Tensor
    box_codes: Tensor
    objectness: Tensor
    center_offsets: Tensor
    priors: Tensor
    strides: Tensor

    @property
    def corners(self) -> Tensor:
        """(I, M, 4) predicted boxes x1, y1, x2, y2 in pixels."""
        return corners_from_cell_codes(self.box_codes, self.priors, self.strides)
