"""All losses of the 3D head for one frame.

Shape letters: L decoder layers, B streams, Q queries, n true boxes, K pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from streampetr_vit.modeling.criterion.assignment import joined_pairs
from streampetr_vit.modeling.criterion.denoising import expected_positives
from streampetr_vit.modeling.criterion.losses import (
    DIVISOR_EPS,
    constant,
    l1_loss_sum,
    one_process_mean,
    sigmoid_focal_loss_sum,
)
from streampetr_vit.modeling.criterion.matcher import CODE_WEIGHTS, HungarianMatcher
from streampetr_vit.modeling.heads.box_coding import encode_boxes
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.outputs import HeadOutput


@dataclass(frozen=True)
class DetectionLoss:
    """Focal and L1 losses of every decoder layer, for matched and for denoising queries.

    Attributes:
        class_weight, box_weight, denoising_weight: factors of the losses.
        code_weights: 10 factors on the box codes.
        max_positive_distance: of the denoising noise, see `DenoisingNoise`.
        reduce_mean: averages a tensor over ranks, once per frame; identity for one process.
    """

    matcher: HungarianMatcher = field(default_factory=HungarianMatcher)
    class_weight: float = 2.0
    box_weight: float = 0.25
    denoising_weight: float = 1.0
    code_weights: tuple[float, ...] = CODE_WEIGHTS
    max_positive_distance: float = 0.75
    reduce_mean: Callable[[Tensor], Tensor] = one_process_mean

    def __post_init__(self) -> None:
        # A configuration passes its own list type; plain floats are quick to read each step.
        object.__setattr__(self, "code_weights", tuple(map(float, self.code_weights)))

    def costs(
        self, output: HeadOutput, boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> list[Tensor]:
        """Costs of pairing queries with true boxes, per stream (L, Q, n_b), for `assign`."""
        return self.matcher.costs(output.logits, output.codes, boxes, labels)

    def losses(
        self,
        output: HeadOutput,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        pairs: Sequence[Tensor],
        denoising: DenoisingQueries | None = None,
    ) -> dict[str, Tensor]:
        """Computes the losses of a frame.

        Args:
            output: of the head, computed with the queries `denoising`.
            boxes, labels: as in `FrameTargets`.
            pairs: `assign(costs(...))`: per stream (L, K_b, 2), query and box of each pair.

        Returns:
            Scalars `loss_cls`, `loss_bbox` of the last layer, `d{i}.loss_*` of the others, and the
            same with `dn_` before `loss` when there is denoising.
        """
        num_matched = sum(pair.shape[1] for pair in pairs)
        num_noised = 0 if denoising is None else len(denoising.labels)
        # One reduction, whatever this rank's boxes are: every rank must make the same calls.
        counts = torch.stack([output.codes.new_full((), n) for n in (num_matched, num_noised)])
        mean_matched, mean_noised = self.reduce_mean(counts).clamp(min=1.0)

        matched = self._matched_losses(output, boxes, labels, pairs, num_matched, mean_matched)
        losses = _named(matched, "")
        if denoising is None:
            return losses
        if output.denoising_logits is None or output.denoising_codes is None:
            # Every rank must log the same keys: without any box the matched losses stand in.
            return losses | _named([part.detach() for part in matched], "dn_")
        return losses | _named(self._denoising_losses(output, denoising, mean_noised), "dn_")

    def _matched_losses(
        self,
        output: HeadOutput,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        pairs: Sequence[Tensor],
        count: int,
        mean_count: Tensor,
    ) -> list[Tensor]:
        logits, codes = output.logits, output.codes
        layers, _, queries, num_classes = logits.shape
        layer = torch.arange(layers, device=logits.device)[:, None]
        # Pairs of all streams side by side, as indexes into the flattened (B * Q) queries and into
        # the boxes of the batch: two of (L, K).
        query, box = joined_pairs(pairs, [len(b) for b in boxes], queries)

        # Background but for the pairs: (L, B, Q) -> (L, B * Q)
        target_labels = logits.new_full(logits.shape[:3], num_classes, dtype=torch.long).flatten(1)
        target_labels[layer, query] = torch.cat(list(labels))[box]
        class_sum = sigmoid_focal_loss_sum(logits.flatten(1, 2), target_labels)  # (L,)
        box_sum = l1_loss_sum(
            codes.flatten(1, 2)[layer, query],  # (L, K, 10)
            encode_boxes(torch.cat(list(boxes)))[box],
            constant(self.code_weights, codes),
        )
        # Quirk, as published: classes by this rank's positives, boxes by the mean over ranks.
        return self._scaled(class_sum, max(count, 1), box_sum, mean_count)

    def _denoising_losses(
        self, output: HeadOutput, denoising: DenoisingQueries, mean_count: Tensor
    ) -> list[Tensor]:
        assert output.denoising_logits is not None and output.denoising_codes is not None
        logits = output.denoising_logits[:, denoising.stream, denoising.slot]  # (L, G * n, classes)
        codes = output.denoising_codes[:, denoising.stream, denoising.slot]
        # Quirk: by the expected number of positives, not by that of this draw.
        positives = expected_positives(len(denoising.labels), self.max_positive_distance)
        class_sum = sigmoid_focal_loss_sum(logits, denoising.labels.expand(len(logits), -1))
        # Quirk: boxes labelled background are regressed too.
        targets = encode_boxes(denoising.boxes).expand_as(codes)
        box_sum = l1_loss_sum(codes, targets, constant(self.code_weights, codes))
        parts = self._scaled(class_sum, max(positives, 1.0), box_sum, mean_count)
        return [part * self.denoising_weight for part in parts]

    def _scaled(
        self, class_sum: Tensor, class_divisor: float, box_sum: Tensor, box_divisor: Tensor
    ) -> list[Tensor]:
        """Divides and weights the (L,) sums."""
        # The reference replaces NaN by 0 here, which makes a dead network look converged. We let it
        # through, and the trainer stops with the name of the loss.
        return [
            self.class_weight * class_sum / (class_divisor + DIVISOR_EPS),
            self.box_weight * box_sum / (box_divisor + DIVISOR_EPS),
        ]


def _named(parts: list[Tensor], prefix: str) -> dict[str, Tensor]:
    """Names the (L,) class and box losses: the last layer plainly, the others by their number."""
    class_loss, box_loss = parts
    losses = {}
    for layer in range(len(class_loss)):
        name = prefix if layer == len(class_loss) - 1 else f"d{layer}.{prefix}"
        losses[f"{name}loss_cls"] = class_loss[layer]
        losses[f"{name}loss_bbox"] = box_loss[layer]
    return losses
