"""What is true in a frame: the targets of training.

Shape letters: B streams, N cameras, n objects of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.structures.boxes2d import Boxes2D
from streampetr_vit.structures.sample import Sample


@dataclass(frozen=True)
class FrameTargets:
    """What is true in one frame of B streams.

    Attributes:
        boxes, labels: per stream (n, 9), gravity centre in the lidar frame, and (n,) int64.
        boxes2d: per picture, B * N, camera fastest; None if the samples have none.
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    boxes2d: list[Boxes2D] | None = None

    @staticmethod
    def collate(samples: Sequence[Sample]) -> FrameTargets:
        """Takes the targets out of samples, one per stream; copies nothing.

        Raises:
            InputError: a sample has no ground truth.
        """
        boxes, labels, boxes2d = [], [], []
        for sample in samples:
            if sample.gt_boxes is None or sample.gt_labels is None:
                raise InputError(
                    f"sample {sample.sample_token!r} has no gt_boxes and gt_labels to train on"
                )
            boxes.append(sample.gt_boxes)
            labels.append(sample.gt_labels)
            boxes2d.append(sample.boxes2d)
        # B times N pictures -> B * N; one sample without 2D boxes, and the frame has none
        whole = [entry for of_sample in boxes2d if of_sample is not None for entry in of_sample]
        return FrameTargets(boxes, labels, whole if None not in boxes2d else None)
