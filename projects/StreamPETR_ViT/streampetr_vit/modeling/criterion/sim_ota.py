"""SimOTA: which cells of a feature pyramid shall predict which object of a picture.

Nothing is solved on the host and no shape depends on values, so that nothing waits for the device.

Source: YOLOX (arXiv 2107.08430), as the released RepDETR3D was trained.
Shape letters: M cells of all levels of one picture, n true objects in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.modeling.ops.rectangles import center_form_from_corners, iou

_FAR_COST = 1e5  # of a cell outside the box or outside its middle
_LEAST_LOG = -100.0
_LOG_EPS = 1e-7


@dataclass(frozen=True)
class CellAssignment:
    """What each cell of one picture shall predict.

    Attributes:
        row: (M,) int64, its object, or -1 for background.
        overlap: (M,) IoU of its predicted box with that object; 0 for background.
    """

    row: Tensor
    overlap: Tensor


@dataclass(frozen=True)
class SimOTA:
    """Gives each object the cells that predict it best already.

    An object always has a cell, unless no cell is near it, or the others take it.

    Attributes:
        center_radius: half side of the square around an object's middle whose cells may take it
            even outside its box, in strides.
        num_candidates: overlaps that are summed, and so the most cells of one object.
        class_weight, overlap_weight: of the cross-entropy and of minus the logarithm of the IoU.

    Raises:
        ValueError: a radius or a number of candidates that leaves nothing.
    """

    center_radius: float = 2.5
    num_candidates: int = 10
    class_weight: float = 1.0
    overlap_weight: float = 3.0

    def __post_init__(self) -> None:
        if self.center_radius <= 0 or self.num_candidates < 1:
            raise ValueError(
                f"SimOTA needs center_radius ({self.center_radius}) above 0 and num_candidates "
                f"({self.num_candidates}) of at least 1"
            )

    @torch.no_grad()
    def __call__(
        self,
        scores: Tensor,
        boxes: Tensor,
        centers: Tensor,
        strides: Tensor,
        true_boxes: Tensor,
        labels: Tensor,
    ) -> CellAssignment:
        """Assigns the cells of one picture. Of cells that cost the same any may be taken.

        Args:
            scores: (M, classes) predicted probabilities of class times objectness.
            boxes: (M, 4) predicted corners in pixels.
            centers: (M, 2) centres of the cells in pixels.
            strides: (M,) pixels of a cell's side.
            true_boxes: (n, 4) corners in pixels.
            labels: (n,) int64 below the number of classes.
        """
        if not len(true_boxes):
            row = torch.full(strides.shape, -1, dtype=torch.int64, device=strides.device)
            return CellAssignment(row, torch.zeros_like(strides))
        near_any, inside = self._near(centers, strides, true_boxes)
        overlap = iou(boxes[:, None], true_boxes)  # (M, n)
        cost = self._cost(scores, overlap, inside, labels)
        overlap = overlap.nan_to_num(nan=0.0)
        # The reference does not even look at cells that are near nothing.
        cost = cost.masked_fill(~near_any[:, None], torch.inf)  # (M, n)
        chosen = self._cheapest(cost, overlap.masked_fill(~near_any[:, None], 0.0))
        # A contested cell goes to the object that it costs least, were it of those or not.
        contested = chosen.sum(1) > 1  # (M,)
        row = torch.where(contested, cost.argmin(1), chosen.int().argmax(1))
        taken = chosen.any(1)
        overlap = overlap.gather(1, row[:, None])[:, 0]  # (M, n) -> (M,)
        return CellAssignment(row.masked_fill(~taken, -1), overlap.masked_fill(~taken, 0.0))

    def _near(self, centers: Tensor, strides: Tensor, true_boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(M,) in the box or about the middle of any object, and (M, n) in both of this one."""
        centers = centers[:, None]  # (M, 1, 2)
        in_box = ((centers > true_boxes[:, :2]) & (centers < true_boxes[:, 2:])).all(-1)
        middle = center_form_from_corners(true_boxes)[:, :2]
        reach = self.center_radius * strides[:, None, None]
        in_middle = ((centers - middle).abs() < reach).all(-1)
        return (in_box | in_middle).any(1), in_box & in_middle

    def _cost(self, scores: Tensor, overlap: Tensor, inside: Tensor, labels: Tensor) -> Tensor:
        """(M, n) costs of each cell with each object, finite."""
        cost = self.class_weight * _class_costs(scores)[:, labels]
        cost = cost - self.overlap_weight * (overlap + _LOG_EPS).log()
        # Added last: it leaves float32 a resolution of 1/128, and another order of the terms would
        # make other ties.
        cost = cost + _FAR_COST * (~inside).to(cost.dtype)
        # A broken prediction costs most. Where no other is near it is taken, and the losses are NaN
        # too, which a training loop notices.
        return cost.nan_to_num(nan=torch.finfo(cost.dtype).max)

    def _cheapest(self, cost: Tensor, overlap: Tensor) -> Tensor:
        """(M, n) bool: the cells that each object takes; those of infinite cost are never taken."""
        count = min(self.num_candidates, len(cost))
        # An object that many cells predict well takes many of them.
        wanted = overlap.topk(count, dim=0).values.sum(0).int().clamp(1, count)  # (n,)
        cheapest = cost.topk(count, dim=0, largest=False)  # (count, n), ascending
        rank = torch.arange(count, device=cost.device)[:, None]
        taken = (rank < wanted) & cheapest.values.isfinite()
        return torch.zeros_like(cost, dtype=torch.bool).scatter(0, cheapest.indices, taken)


def _class_costs(scores: Tensor) -> Tensor:
    """(M, classes): cross-entropy of each cell's scores with each class as the only true one."""
    probability = scores.sqrt()  # a score is class times objectness
    yes = -probability.log().clamp(min=_LEAST_LOG)
    no = -(-probability).log1p().clamp(min=_LEAST_LOG)
    is_true = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    # (M, 1, classes) against (classes, classes) -> (M, classes, classes) -> (M, classes)
    return torch.where(is_true, yes[:, None], no[:, None]).sum(-1)
