"""The losses of a training step, over the frames and heads that have losses in it.

Shape letters: B streams, N cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from streampetr_vit.modeling.criterion.assignment import assign
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries
from streampetr_vit.modeling.heads.outputs import HeadOutput, ImageOutput, YOLOXOutput
from streampetr_vit.structures import Boxes2D, FrameTargets


@dataclass(frozen=True)
class FrameResult:
    """What the network made of one frame.

    Attributes:
        output: of the 3D head.
        denoising: the queries that it was computed with.
        image_output: of the 2D head.
        image_size: (height, width) in pixels of the padded pictures.
    """

    output: HeadOutput
    denoising: DenoisingQueries | None
    image_output: ImageOutput | YOLOXOutput | None
    image_size: tuple[int, int]


class ImageCriterion(Protocol):
    """Losses of one kind of 2D head, in two steps for the assignment in between."""

    def costs(
        self, output: Any, targets: Sequence[Boxes2D], image_size: tuple[int, int]
    ) -> list[Tensor]:
        """Matrices for `assign`; empty if nothing is to be solved on the host.

        Args:
            output: of I images, as the 2D head returns it.
            targets: I of them, on the device of `output`.
            image_size: (height, width) of the padded images in pixels.
        """

    def losses(
        self,
        output: Any,
        targets: Sequence[Boxes2D],
        image_size: tuple[int, int],
        pairs: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Scalars by their published names; `pairs` are `assign(costs(...))`."""


@dataclass(frozen=True)
class TrainingLoss:
    """Losses of the 3D head, and of the 2D head where there is one."""

    detection: DetectionLoss
    image: ImageCriterion | None = None

    def __call__(
        self, results: Sequence[FrameResult], targets: Sequence[FrameTargets]
    ) -> dict[str, Tensor]:
        """Losses of the frames that have some, in temporal order, in float32.

        Returns:
            Scalars. Those of the newest frame have the names of their criterion; those of the frame
            before begin with `t-1.`, and so on.
        """
        with torch.autocast(results[0].output.logits.device.type, enabled=False):
            # Matched at once: one copy to the host for all frames, layers, streams and pictures.
            costs = [self._costs(*frame) for frame in zip(results, targets, strict=True)]
            pairs = iter(assign([cost for of_frame in costs for cost in of_frame]))
            losses: dict[str, Tensor] = {}
            for index, (result, true) in enumerate(zip(results, targets, strict=True)):
                age = len(results) - 1 - index
                prefix = f"t-{age}." if age else ""
                # `pairs` come in the order of `costs`: as many for this frame as it had costs.
                of_frame = self._losses(result, true, [next(pairs) for _ in costs[index]])
                losses |= {prefix + name: value for name, value in of_frame.items()}
            return losses

    def _costs(self, result: FrameResult, targets: FrameTargets) -> list[Tensor]:
        """Those of the streams, then those of the pictures."""
        costs = self.detection.costs(result.output, targets.boxes, targets.labels)
        if self.image is not None:
            assert result.image_output is not None and targets.boxes2d is not None
            costs += self.image.costs(result.image_output, targets.boxes2d, result.image_size)
        return costs

    def _losses(
        self, result: FrameResult, targets: FrameTargets, pairs: list[Tensor]
    ) -> dict[str, Tensor]:
        streams = len(targets.boxes)
        losses = self.detection.losses(
            result.output, targets.boxes, targets.labels, pairs[:streams], result.denoising
        )
        if self.image is not None:
            assert result.image_output is not None and targets.boxes2d is not None
            losses |= self.image.losses(
                result.image_output, targets.boxes2d, result.image_size, pairs[streams:]
            )
        return losses
