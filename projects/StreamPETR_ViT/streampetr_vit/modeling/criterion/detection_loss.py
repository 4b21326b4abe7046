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
    closeness,
    constant,
    l1_loss_sum,
    one_process_mean,
    sigmoid_focal_loss_sum,
    soft_focal_loss_sum,
)
from streampetr_vit.modeling.criterion.matcher import CODE_WEIGHTS, HungarianMatcher
from streampetr_vit.modeling.criterion.quality_loss import QualityLoss
from streampetr_vit.modeling.heads.box_coding import encode_boxes
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.outputs import HeadOutput


@dataclass(frozen=True)
class DetectionLoss:
    """Focal and L1 losses of every decoder layer, for matched and for denoising queries.

    Of a head that says how good its boxes are, the losses of that too, for matched queries.

    Attributes:
        class_weight, box_weight, denoising_weight: factors of the losses.
        code_weights: 10 factors on the box codes.
        max_positive_distance: of the denoising noise, see `DenoisingNoise`.
        reduce_mean: averages a tensor over ranks, once per frame; identity for one process.
        quality: losses of `HeadOutput.quality`, where the head gives it.
        soft_class_target: the target of a matched query's class is `closeness` of its box to the
            object; False asks for 1 wherever the box is.
    """

    matcher: HungarianMatcher = field(default_factory=HungarianMatcher)
    class_weight: float = 2.0
    box_weight: float = 0.25
    denoising_weight: float = 1.0
    code_weights: tuple[float, ...] = CODE_WEIGHTS
    max_positive_distance: float = 0.75
    reduce_mean: Callable[[Tensor], Tensor] = one_process_mean
    quality: QualityLoss = field(default_factory=QualityLoss)
    soft_class_target: bool = False

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
            same with `dn_` before `loss` when there is denoising. With a quality, `loss_centerness`
            and `loss_yawness` likewise, without `dn_`.
        """
        num_matched = sum(pair.shape[1] for pair in pairs)
        num_noised = 0 if denoising is None else len(denoising.labels)
        # One reduction, whatever this rank's boxes are: every rank must make the same calls.
        counts = torch.stack([output.codes.new_full((), n) for n in (num_matched, num_noised)])
        mean_matched, mean_noised = self.reduce_mean(counts).clamp(min=1.0)

        paired = _Paired.join(pairs, boxes, labels, output.codes)
        matched = self._matched_losses(output, paired, num_matched, mean_matched)
        losses = _named(matched, "")
        if output.quality is not None:
            parts = self._quality_losses(output.quality, output.codes, paired, mean_matched)
            losses |= _named(parts, "", ("centerness", "yawness"))
        if denoising is None:
            return losses
        if output.denoising_logits is None or output.denoising_codes is None:
            # Every rank must log the same keys: without any box the matched losses stand in.
            return losses | _named([part.detach() for part in matched], "dn_")
        return losses | _named(self._denoising_losses(output, denoising, mean_noised), "dn_")

    def _matched_losses(
        self, output: HeadOutput, paired: _Paired, count: int, mean_count: Tensor
    ) -> list[Tensor]:
        logits, codes = output.logits.flatten(1, 2), output.codes.flatten(1, 2)  # (L, B * Q, ...)
        # Background but for the pairs.
        target_labels = logits.new_full(logits.shape[:2], logits.shape[-1], dtype=torch.long)
        target_labels[paired.rows] = paired.labels[paired.box]
        centers_m = None
        if self.soft_class_target:
            # Quirk, as published: a query without an object looks for one at the origin.
            centers_m = codes.new_zeros(*codes.shape[:2], 2)
            centers_m[paired.rows] = paired.boxes[paired.box][..., :2]
        class_sum = self._class_sum(logits, target_labels, codes, centers_m)
        box_sum = l1_loss_sum(
            codes[paired.rows],  # (L, K, 10)
            encode_boxes(paired.boxes)[paired.box],
            constant(self.code_weights, codes),
        )
        # Quirk, as published: classes by this rank's positives, boxes by the mean over ranks.
        return self._scaled(class_sum, max(count, 1), box_sum, mean_count)

    def _quality_losses(
        self, quality: Tensor, codes: Tensor, paired: _Paired, mean_count: Tensor
    ) -> list[Tensor]:
        sums = self.quality.sums(
            quality.flatten(1, 2)[paired.rows],  # (L, K, 2)
            codes.flatten(1, 2)[paired.rows],
            paired.boxes[paired.box],
            paired.labels[paired.box],
        )
        return [total / (mean_count + DIVISOR_EPS) for total in sums]

    def _class_sum(
        self, logits: Tensor, labels: Tensor, codes: Tensor, centers_m: Tensor | None
    ) -> Tensor:
        """(L,) sums over rows (L, R, ...).

        Args:
            centers_m: (..., R, 2), where the objects of the rows are; for `soft_class_target`.
        """
        if not self.soft_class_target:
            return sigmoid_focal_loss_sum(logits, labels)
        assert centers_m is not None
        return soft_focal_loss_sum(logits, labels, closeness(codes[..., :2], centers_m))

    def _denoising_losses(
        self, output: HeadOutput, denoising: DenoisingQueries, mean_count: Tensor
    ) -> list[Tensor]:
        assert output.denoising_logits is not None and output.denoising_codes is not None
        logits = output.denoising_logits[:, denoising.stream, denoising.slot]  # (L, R, classes)
        codes = output.denoising_codes[:, denoising.stream, denoising.slot]
        # Quirk: by the expected number of positives, not by that of this draw.
        positives = expected_positives(len(denoising.labels), self.max_positive_distance)
        class_sum = self._class_sum(
            logits, denoising.labels.expand(len(logits), -1), codes, denoising.boxes[:, :2]
        )
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


@dataclass(frozen=True)
class _Paired:
    """Queries and true boxes of all streams, paired in each layer.

    Attributes:
        rows: (L, 1) layer and (L, K) query of each pair, indexes into (L, B * Q, ...).
        box: (L, K) int64, box of each pair.
        boxes, labels: (n, 9) and (n,) of the batch.
    """

    rows: tuple[Tensor, Tensor]
    box: Tensor
    boxes: Tensor
    labels: Tensor

    @staticmethod
    def join(
        pairs: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor], codes: Tensor
    ) -> _Paired:
        """Puts the streams side by side; (L, B, Q, 10) codes, the others as for the losses."""
        layers, _, queries, _ = codes.shape
        layer = torch.arange(layers, device=codes.device)[:, None]
        query, box = joined_pairs(pairs, [len(b) for b in boxes], queries)
        return _Paired((layer, query), box, torch.cat(list(boxes)), torch.cat(list(labels)))


def _named(
    parts: list[Tensor], prefix: str, names: tuple[str, str] = ("cls", "bbox")
) -> dict[str, Tensor]:
    """Names two (L,) losses: the last layer's plainly, the others by their number."""
    losses = {}
    last = len(parts[0]) - 1
    for layer in range(last + 1):
        start = prefix if layer == last else f"d{layer}.{prefix}"
        for name, part in zip(names, parts, strict=True):
            losses[f"{start}loss_{name}"] = part[layer]
    return losses
