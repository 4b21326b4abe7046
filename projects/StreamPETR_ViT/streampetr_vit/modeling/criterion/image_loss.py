"""All losses of the auxiliary 2D head for one frame, over all its images at once.

Shape letters: I images, T tokens of an image, n true objects of all images, K pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.criterion.assignment import joined_pairs
from streampetr_vit.modeling.criterion.center_heatmap import center_heatmaps
from streampetr_vit.modeling.criterion.image_matcher import ImageMatcher, ImageTargets
from streampetr_vit.modeling.criterion.losses import (
    DIVISOR_EPS,
    gaussian_focal_loss_sum,
    one_process_mean,
    quality_focal_loss_sum,
)
from streampetr_vit.modeling.heads.outputs import ImageOutput
from streampetr_vit.modeling.ops.rectangles import giou, iou
from streampetr_vit.structures import Boxes2D

_MIN_PROBABILITY = 1e-4  # of the centerness, and of its complement


@dataclass(frozen=True)
class ImageLoss:
    """Quality focal, L1, GIoU, centre and centerness losses of the 2D head.

    Attributes:
        class_weight, box_weight, iou_weight, center_weight, centerness_weight: factors of the
            losses.
        quality_beta: focusing exponent of the class loss.
        stride: pixels of one feature cell.
        reduce_mean: averages a tensor over ranks, once per frame; identity for one process.
    """

    matcher: ImageMatcher = field(default_factory=ImageMatcher)
    class_weight: float = 2.0
    box_weight: float = 5.0
    iou_weight: float = 2.0
    center_weight: float = 10.0
    centerness_weight: float = 1.0
    quality_beta: float = 2.0
    stride: int = 16
    reduce_mean: Callable[[Tensor], Tensor] = one_process_mean

    def costs(
        self, output: ImageOutput, targets: Sequence[Boxes2D], image_size: tuple[int, int]
    ) -> list[Tensor]:
        """Per image (T, n_i); see `ImageCriterion.costs`."""
        return self.matcher.costs(output, targets, image_size)

    def losses(
        self,
        output: ImageOutput,
        targets: Sequence[Boxes2D],
        image_size: tuple[int, int],
        pairs: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Losses of a frame from its pairs of tokens and objects; see `ImageCriterion.losses`.

        Raises:
            InputError: the image size does not give T tokens.
        """
        images, tokens, _ = output.logits.shape
        self._check_tokens(tokens, image_size)
        all_true = ImageTargets.join(targets, image_size)
        # (K,) into the I * T tokens, and (K,) into the n objects
        token, row = joined_pairs(pairs, [len(boxes) for boxes in targets], tokens)
        true, boxes = all_true[row], output.boxes.flatten(0, 1)[token]
        corners = true.pixel_corners(boxes)
        # Without boxes too: every rank must make the same calls.
        count = boxes.new_full((), len(token))
        mean_count = self.reduce_mean(count).clamp(min=1.0)

        logits = output.logits.flatten(0, 1)  # (I, T, classes) -> (I * T, classes)
        # A token is to be as sure of its class as its box is good. No gradient to the box.
        overlap = iou(corners.detach(), true.corners)
        quality = torch.zeros_like(logits).index_put((token, true.labels), overlap)
        centers = output.centers.flatten(0, 1)[token]
        heatmaps = center_heatmaps(all_true, images, self.stride)
        probability = output.centerness[..., 0].sigmoid()  # (I, T)
        probability = probability.clamp(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
        class_sum = quality_focal_loss_sum(logits, quality, self.quality_beta)
        box_sum = (boxes - true.boxes).abs().sum()
        iou_sum = (1 - giou(corners, true.corners)).sum()
        center_sum = (centers - true.relative_centers).abs().sum()
        centerness_sum = gaussian_focal_loss_sum(probability, heatmaps.flatten(1))
        # Quirk, as published: class and GIoU by this rank's pairs, the others by the ranks' mean.
        divisor = mean_count + DIVISOR_EPS
        return {
            "enc_loss_cls": self.class_weight * class_sum / (max(len(token), 1) + DIVISOR_EPS),
            "enc_loss_bbox": self.box_weight * box_sum / divisor,
            "enc_loss_iou": self.iou_weight * iou_sum / (len(token) + DIVISOR_EPS),
            "centers2d_losses": self.center_weight * center_sum / divisor,
            "centerness_losses": self.centerness_weight * centerness_sum / divisor,
        }

    def _check_tokens(self, tokens: int, image_size: tuple[int, int]) -> None:
        height, width = (side // self.stride for side in image_size)
        if height * width != tokens:
            raise InputError(
                f"the 2D head gave {tokens} tokens per image, but images of {image_size} "
                f"(height, width) have {height} x {width} cells of stride {self.stride}; give the "
                "size of the padded images, and ImageLoss.stride as the head's"
            )
