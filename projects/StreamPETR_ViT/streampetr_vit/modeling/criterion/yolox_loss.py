"""All losses of the 2D head of a feature pyramid for one frame, over all its images at once.

Shape letters: I images, M cells of all levels of an image, n true objects of all images, K cells
that shall predict one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.criterion.image_matcher import ImageTargets
from streampetr_vit.modeling.criterion.losses import one_process_mean, square_iou_loss_sum
from streampetr_vit.modeling.criterion.sim_ota import CellAssignment, SimOTA
from streampetr_vit.modeling.heads.outputs import YOLOXOutput
from streampetr_vit.modeling.ops.rectangles import cell_codes_from_corners, iou
from streampetr_vit.structures import Boxes2D


@dataclass(frozen=True)
class CellTargets:
    """What the cells with an object shall predict.

    Attributes:
        index: (K,) int64, ascending, into the I * M cells.
        classes: (K, classes), the overlap at the object's class, else 0.
        corners: (K, 4) in pixels.
        box_codes: (K, 4), the same as codes of the cell.
        center_offsets: (K, 2) of the projected 3D centre from the cell, in strides.
    """

    index: Tensor
    classes: Tensor
    corners: Tensor
    box_codes: Tensor
    center_offsets: Tensor


@dataclass(frozen=True)
class YOLOXLoss:
    """Class, IoU, objectness, L1 and centre losses of the YOLOX head.

    Attributes:
        class_weight, iou_weight, objectness_weight, box_weight, center_weight: factors of the
            losses.
        reduce_mean: averages a tensor over ranks, once per frame; identity for one process.
    """

    assigner: SimOTA = field(default_factory=SimOTA)
    class_weight: float = 1.0
    iou_weight: float = 5.0
    objectness_weight: float = 1.0
    box_weight: float = 1.0
    center_weight: float = 1.0
    reduce_mean: Callable[[Tensor], Tensor] = one_process_mean

    def costs(
        self, output: YOLOXOutput, targets: Sequence[Boxes2D], image_size: tuple[int, int]
    ) -> list[Tensor]:
        """Nothing: SimOTA assigns on the device."""
        return []

    def losses(
        self,
        output: YOLOXOutput,
        targets: Sequence[Boxes2D],
        image_size: tuple[int, int],
        pairs: Sequence[Tensor] = (),
    ) -> dict[str, Tensor]:
        """Losses of a frame, without any pairs; see `ImageCriterion.losses`.

        Raises:
            InputError: not one target per image, or a label that is no class.
        """
        wanted = self.targets(output, targets, image_size)
        # Without boxes too: every rank must make the same calls.
        count = output.logits.new_full((), len(wanted.index))  # cells that have an object
        divisor = self.reduce_mean(count).clamp(min=1.0)

        # (I, M, ...) -> (I * M, ...) -> (K, ...)
        logits, codes, offsets, corners = (
            value.flatten(0, 1)[wanted.index]
            for value in (output.logits, output.box_codes, output.center_offsets, output.corners)
        )
        objectness = output.objectness.flatten()  # (I * M,)
        has_object = torch.zeros_like(objectness).index_fill(0, wanted.index, 1.0)
        center_sum = (offsets - wanted.center_offsets).abs().sum()
        sums = {
            "enc_loss_cls": self.class_weight * _cross_entropy_sum(logits, wanted.classes),
            "enc_loss_iou": self.iou_weight * square_iou_loss_sum(iou(corners, wanted.corners)),
            "enc_loss_obj": self.objectness_weight * _cross_entropy_sum(objectness, has_object),
            "enc_loss_bbox": self.box_weight * (codes - wanted.box_codes).abs().sum(),
            "enc_loss_centers2d": self.center_weight * center_sum,
        }
        return {name: value / divisor for name, value in sums.items()}

    @torch.no_grad()
    def targets(
        self, output: YOLOXOutput, targets: Sequence[Boxes2D], image_size: tuple[int, int]
    ) -> CellTargets:
        """Chooses the cells with an object, and what they shall predict; arguments as `losses`."""
        images, cells, num_classes = output.logits.shape
        if len(targets) != images:
            raise InputError(
                f"the 2D head gave predictions of {images} images, but there are 2D boxes of "
                f"{len(targets)}; give one Boxes2D per image, an empty one too"
            )
        true = ImageTargets.join(targets, image_size)
        _check_labels(true.labels, num_classes)
        assigned = self._assign(output, targets)
        firsts = [0, *accumulate(len(boxes) for boxes in targets)]
        # (I * M,) into the n objects; negative for background.
        row = torch.cat([each.row + (each.row >= 0) * firsts[i] for i, each in enumerate(assigned)])
        overlap = torch.cat([each.overlap for each in assigned])
        # To read the number of cells, and the labels above, waits for a GPU. The step just waited
        # for the matching of the 3D head, so little is left to wait for. Without, all losses would
        # be computed for every cell, of which a few in a thousand have an object.
        index = (row >= 0).nonzero()[:, 0]
        true, cell = true[row[index]], index % cells
        prior, stride = output.priors[cell], output.strides[cell]
        # A cell is to be as sure of its class as its box overlaps the object.
        classes = F.one_hot(true.labels, num_classes) * overlap[index][:, None]  # (K, classes)
        return CellTargets(
            index=index,
            classes=classes,
            corners=true.corners,
            box_codes=cell_codes_from_corners(true.corners, prior, stride),
            center_offsets=(true.centers - prior) / stride[:, None],
        )

    def _assign(self, output: YOLOXOutput, targets: Sequence[Boxes2D]) -> list[CellAssignment]:
        scores = output.logits.sigmoid() * output.objectness.sigmoid()  # (I, M, classes)
        # Quirk: boxes count from the corner of a cell, but its middle must be near the object.
        centers = output.priors + output.strides[:, None] / 2
        return [
            self.assigner(score, boxes, centers, output.strides, true.corners, true.labels)
            for score, boxes, true in zip(scores, output.corners, targets, strict=True)
        ]


def _cross_entropy_sum(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum")


def _check_labels(labels: Tensor, num_classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise InputError(
            f"Boxes2D.labels has {wrong[0].item()}, but the 2D head has classes 0 to "
            f"{num_classes - 1}; leave out objects of other classes, or give the head more"
        )
