"""True objects of all pictures of a step, and the costs of pairing them with predictions.

Shape letters: I images, T tokens of an image, n true objects of all images together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from streampetr_vit.modeling.criterion.losses import constant, finite_costs, focal_cost
from streampetr_vit.modeling.heads.outputs import ImageOutput
from streampetr_vit.modeling.ops.rectangles import (
    center_form_from_corners,
    corners_from_center_form,
    giou,
)
from streampetr_vit.structures import Boxes2D, packed_to


@dataclass(frozen=True)
class ImageTargets:
    """True objects of several pictures of one size, one picture after another.

    Attributes:
        corners: (n, 4) x1, y1, x2, y2 in pixels.
        centers: (n, 2) projected 3D centres in pixels.
        labels: (n,) int64.
        image: (n,) int64, the picture of each.
        sides: (2,) width and height of the padded pictures in pixels.
        image_size: (height, width), the same numbers on the host.
    """

    corners: Tensor
    centers: Tensor
    labels: Tensor
    image: Tensor
    sides: Tensor
    image_size: tuple[int, int]

    @classmethod
    def join(cls, targets: Sequence[Boxes2D], image_size: tuple[int, int]) -> ImageTargets:
        """Concatenates the objects of the I pictures; at least one picture."""
        counts = torch.tensor([len(boxes) for boxes in targets])
        # Made on the host, where the counts are: on the device its shape would be waited for.
        image = torch.arange(len(targets)).repeat_interleave(counts)
        corners = torch.cat([boxes.corners for boxes in targets])
        return cls(
            corners=corners,
            centers=torch.cat([boxes.centers for boxes in targets]),
            labels=torch.cat([boxes.labels for boxes in targets]),
            image=packed_to(image, corners.device),
            sides=constant(image_size[::-1], corners),
            image_size=image_size,
        )

    def __getitem__(self, rows: Tensor) -> ImageTargets:
        return replace(
            self,
            corners=self.corners[rows],
            centers=self.centers[rows],
            labels=self.labels[rows],
            image=self.image[rows],
        )

    @property
    def boxes(self) -> Tensor:
        """(n, 4) cx, cy, width, height as fractions of the picture's sides."""
        return center_form_from_corners(self.corners / self.sides.repeat(2))

    @property
    def relative_centers(self) -> Tensor:
        """(n, 2) centres as fractions of the picture's sides."""
        return self.centers / self.sides

    def pixel_corners(self, boxes: Tensor) -> Tensor:
        """Predicted (..., 4) cx, cy, width, height in fractions to corners in pixels."""
        return corners_from_center_form(boxes) * self.sides.repeat(2)


@dataclass(frozen=True)
class ImageMatcher:
    """Costs of pairs of a token's prediction and a true object.

    Attributes:
        class_weight, box_weight, giou_weight, center_weight: weights of the focal cost, of the L1
            distances of boxes and of centres in fractions of the picture, and of minus the GIoU.
        alpha, gamma: see `focal_cost`.
    """

    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    center_weight: float = 10.0
    alpha: float = 0.25
    gamma: float = 2.0

    @torch.no_grad()
    def costs(
        self, output: ImageOutput, targets: Sequence[Boxes2D], image_size: tuple[int, int]
    ) -> list[Tensor]:
        """Costs of all pairs within each image, (T, n_i), finite; see `ImageCriterion.costs`."""
        true = ImageTargets.join(targets, image_size)
        # Each object meets the tokens of its own picture only.
        boxes = output.boxes[true.image]  # (n, T, 4)
        centers = output.centers[true.image]  # (n, T, 2)
        logits = output.logits[true.image, :, true.labels]  # (n, T)
        cost = (
            self.class_weight * focal_cost(logits, self.alpha, self.gamma)
            + self.box_weight * (boxes - true.boxes[:, None]).abs().sum(-1)
            - self.giou_weight * giou(true.pixel_corners(boxes), true.corners[:, None])
            + self.center_weight * (centers - true.relative_centers[:, None]).abs().sum(-1)
        )
        # (n, T) -> (T, n) -> for each image (T, n_i)
        return list(finite_costs(cost).T.split([len(boxes) for boxes in targets], dim=1))
