"""The losses of the detector as plain sums, which the criterion divides, and the focal cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to every divisor. Source: released StreamPETR behaviour.
DIVISOR_EPS = torch.finfo(torch.float32).eps
_LOG_EPS = 1e-12
_LEAST_IOU = 1e-16
_BAD_COST = 100.0  # scipy refuses matrices with NaN or infinity


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Fixed numbers as a tensor like another; not to be written to."""
    # Kept: a copy from the host in every step would wait for the device each time.
    return _kept(tuple(values), like.dtype, like.device)


@lru_cache(maxsize=64)
def _kept(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Made in inference mode it could not take part in a training step later.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def one_process_mean(value: Tensor) -> Tensor:
    """The mean over ranks where there is one: the value itself."""
    return value


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
    # (..., Q) -> (..., Q, classes); background is a row of zeros
    target = F.one_hot(labels, num_classes + 1)[..., :num_classes].to(logits.dtype)
    p = logits.sigmoid()
    wrong = p + target - 2 * p * target  # 1 - p at the target, p elsewhere
    weight = (alpha * target + (1 - alpha) * (1 - target)) * wrong.pow(gamma)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight
    return loss.sum(dim=(-1, -2))


def soft_focal_loss_sum(
    logits: Tensor, labels: Tensor, quality: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """`sigmoid_focal_loss_sum` whose target at the class of a row is a quality instead of 1.

    Args:
        quality: (..., Q) in [0, 1], without gradient; not read in rows of the background.
        logits, labels, alpha, gamma: see there.

    Source: OPEN's class loss.
    """
    num_classes = logits.shape[-1]
    # (..., Q) -> (..., Q, classes); background is a row of zeros
    target = F.one_hot(labels, num_classes + 1)[..., :num_classes] * quality[..., None]
    weight = (1 - alpha) + (2 * alpha - 1) * target  # alpha at a target of 1, 1 - alpha at 0
    weight = weight * (target - logits.sigmoid()).abs().pow(gamma)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight
    return loss.sum(dim=(-1, -2))


@torch.no_grad()
def closeness(predicted_m: Tensor, centers_m: Tensor) -> Tensor:
    """How near rows are to their objects on the ground: exp(-metres), over its maximum of all rows.

    Args:
        predicted_m: (..., R, 2) centres of predicted boxes.
        centers_m: likewise of the objects. A row whose object is nowhere (NaN) counts as near.

    Returns:
        (..., R) in [0, 1].

    Source: OPEN's class loss.
    """
    error_m = torch.where(centers_m.isfinite(), predicted_m - centers_m, 0).norm(dim=-1)
    if not error_m.shape[-1]:
        return error_m  # no row, and no maximum
    # exp(-error) over the largest exp(-error). That may be 0 in float32; this form has no division.
    return (error_m.amin(-1, keepdim=True) - error_m).exp()


def l1_loss_sum(codes: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Sums (...) of weighted L1 distances of codes (..., n, 10), weights (10,).

    Only rows count whose target is finite in every code.
    """
    is_finite = targets.isfinite().all(-1, keepdim=True)  # NaN velocities, sizes of 0
    # Replaced before the difference: the gradient of a NaN is NaN, whatever it is multiplied by.
    distance = (codes - torch.where(is_finite, targets, codes)).abs() * weights
    return torch.where(is_finite, distance, 0).sum(dim=(-1, -2))


def focal_cost(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """What it costs to call predictions (...) positive rather than negative, by their logits.

    Negative where the class is likely; `alpha` and `gamma` as in `sigmoid_focal_loss_sum`.
    """
    p = logits.sigmoid()
    positive = -(p + _LOG_EPS).log() * alpha * (1 - p).pow(gamma)
    negative = -(1 - p + _LOG_EPS).log() * (1 - alpha) * p.pow(gamma)
    return positive - negative


def finite_costs(cost: Tensor) -> Tensor:
    """Costs with 100 instead of NaN and infinity, and -100 instead of minus infinity."""
    return cost.nan_to_num(nan=_BAD_COST, posinf=_BAD_COST, neginf=-_BAD_COST)


def quality_focal_loss_sum(logits: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """Scalar sum of the focal loss with a quality as target (Source: arXiv 2006.04388).

    The quality (..., classes) is in [0, 1], without gradient, and 0 for every wrong class.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (entropy * (quality - logits.sigmoid()).abs().pow(beta)).sum()


def gaussian_focal_loss_sum(
    probability: Tensor, heatmap: Tensor, alpha: float = 2.0, gamma: float = 4.0
) -> Tensor:
    """Scalar sum of `gaussian_focal_loss`."""
    return gaussian_focal_loss(probability, heatmap, alpha, gamma).sum()


def gaussian_focal_loss(
    probability: Tensor, heatmap: Tensor, alpha: float = 2.0, gamma: float = 4.0
) -> Tensor:
    """The focal loss of each cell of a heatmap (Source: CornerNet, arXiv 1808.01244).

    The heatmap is in [0, 1], positive where it is exactly 1.
    """
    peak = -(probability + _LOG_EPS).log() * (1 - probability).pow(alpha)
    elsewhere = -(1 - probability + _LOG_EPS).log() * probability.pow(alpha)
    # Cells near a peak count less.
    return torch.where(heatmap == 1, peak, elsewhere * (1 - heatmap).pow(gamma))


def square_iou_loss_sum(overlap: Tensor) -> Tensor:
    """Scalar sum of how far squared overlaps (...), IoU in [0, 1], are from 1, as in YOLOX."""
    # Clamped: where nothing overlaps there is no gradient.
    return (1 - overlap.clamp(min=_LEAST_IOU).square()).sum()
