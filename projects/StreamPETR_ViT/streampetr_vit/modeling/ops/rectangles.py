"""Upright rectangles in pictures: their two forms, and how much two of them overlap.

Corners are x1, y1, x2, y2; the centre form is cx, cy, width, height. The unit is the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Least area that is divided by. Source: IoU cost and losses of the released models.
_EPS = 1e-6
_LOG_EPS = 1e-8  # boxes without area have a finite code


def corners_from_center_form(boxes: Tensor) -> Tensor:
    """(..., 4) cx, cy, width, height to (..., 4) corners."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((center - half, center + half), dim=-1)


def center_form_from_corners(corners: Tensor) -> Tensor:
    """(..., 4) corners to (..., 4) cx, cy, width, height."""
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def corners_from_cell_codes(codes: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    """Boxes that cells of a feature pyramid predict: (..., 4) corners in pixels.

    Args:
        codes: (..., 4): the box's centre from the cell's corner, in strides, and the logarithms of
            its sides in strides.
        priors: (..., 2) top left corners of the cells in pixels. Quirk: not their middles.
        strides: (...) pixels of a cell's side.
    """
    strides = strides[..., None]
    center, size = codes[..., :2] * strides + priors, codes[..., 2:].exp() * strides
    return corners_from_center_form(torch.cat((center, size), dim=-1))


def cell_codes_from_corners(corners: Tensor, priors: Tensor, strides: Tensor) -> Tensor:
    """Inverse of `corners_from_cell_codes`; sides without length become about -18."""
    strides = strides[..., None]
    box = center_form_from_corners(corners)
    log_size = (box[..., 2:] / strides + _LOG_EPS).log()
    return torch.cat(((box[..., :2] - priors) / strides, log_size), dim=-1)


def iou(a: Tensor, b: Tensor, eps: float = _EPS) -> Tensor:
    """Intersection over union of corners (..., 4) that broadcast: (...) in [0, 1].

    `eps` is the smallest union; boxes without area overlap nothing, themselves included.
    """
    intersection, union = _intersection_and_union(a, b, eps)
    return intersection / union


def giou(a: Tensor, b: Tensor, eps: float = _EPS) -> Tensor:
    """Generalised IoU: `iou` less the empty share of the smallest box around both, in [-1, 1].

    Source: arXiv 1902.09630.
    """
    intersection, union = _intersection_and_union(a, b, eps)
    low, high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    around = (high - low).prod(-1).clamp(min=eps)
    return intersection / union - (around - union) / around


def _intersection_and_union(a: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)  # 0 where they are apart in x or in y
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return intersection, (areas - intersection).clamp(min=eps)
