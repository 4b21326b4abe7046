"""What the heads say.

Shape letters: B streams, Q learned queries, P propagated queries, S denoising queries, n
true boxes of a batch, L decoder layers, E channels, I images of a batch
(camera fastest), T tokens of one image (row by row), M cells of a feature pyramid of one image
(finest level first, row by row), K queries that the memory takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from streampetr_vit.modeling.ops.rectangles import corners_from_cell_codes


@dataclass(frozen=True)
class HeadOutput:
    """Predictions of every decoder layer.

    Attributes:
        logits: (L, B, Q + P, classes).
        codes: (L, B, Q + P, 10), see `box_coding`; metres.
        states: (L, B, Q + P, E) decoder outputs.
        lineage: (B, Q + P) int64, that of the memory's entry for propagated queries, -1 for others.
        remembered: (B, K) int64, queries that enter the memory, best first.
        denoising_logits, denoising_codes: (L, B, S, ...) of the denoising queries; None
            without any.
        quality: (L, B, Q + P, 2) logits, see `QualityBranch`; None of a head without.
    """

    logits: Tensor
    codes: Tensor
    states: Tensor
    lineage: Tensor
    remembered: Tensor
    denoising_logits: Tensor | None = None
    denoising_codes: Tensor | None = None
    quality: Tensor | None = None


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
