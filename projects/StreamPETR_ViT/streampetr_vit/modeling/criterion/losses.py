"""The two losses of the detector, as plain sums; the criterion divides."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to every divisor. Source: released StreamPETR behaviour.
DIVISOR_EPS = torch.finfo(torch.float32).eps


def sigmoid_focal_loss_sum(
    logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss of sigmoid classes.

    Args:
        logits: (..., Q, classes).
        labels: (..., Q) int64; `classes` is background.
        alpha: weight of the positive class; 1 - alpha for the negatives.
        gamma: focusing exponent.

    Returns:
        (...): summed over the last two dimensions.
    """
    num_classes = logits.shape[-1]
    target = F.one_hot(labels, num_classes + 1)[..., :num_classes].to(logits.dtype)
    p = logits.sigmoid()
    wrong = p + target - 2 * p * target  # 1 - p at the target, p elsewhere
    weight = (alpha * target + (1 - alpha) * (1 - target)) * wrong.pow(gamma)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight
    return loss.sum(dim=(-1, -2))


def l1_loss_sum(codes: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted L1 distance over the rows whose target is finite in every code.

    Args:
        codes, targets: (..., n, 10).
        weights: (10,).

    Returns:
        (...): summed over the last two dimensions.
    """
    finite = targets.isfinite().all(-1, keepdim=True)
    distance = (codes - torch.where(finite, targets, codes)).abs() * weights
    return torch.where(finite, distance, 0).sum(dim=(-1, -2))
