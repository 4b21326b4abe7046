"""Samples of several streams side by side: what a training step reads.

Shape letters: B streams, N cameras, T frames of a window, n objects of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.structures.frame import Frame
from streampetr_vit.structures.packed_copy import packed_to
from streampetr_vit.structures.sample import Boxes2D, Sample


@dataclass(frozen=True)
class FrameTargets:
    """What is true in one frame of B streams: the targets of training.

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
        # B times N pictures -> B * N; if one sample has no 2D boxes, the frame has none
        whole = [entry for of_sample in boxes2d if of_sample is not None for entry in of_sample]
        return FrameTargets(boxes, labels, whole if None not in boxes2d else None)


def collate_windows(
    entries: Sequence[Sample | Sequence[Sample]], device: torch.device, num_targets: int
) -> tuple[list[Frame], list[FrameTargets]]:
    """T frames on the device, and the targets of the last `num_targets` of them.

    Args:
        entries: B samples, or B windows of T samples in temporal order.

    Raises:
        ValueError: windows of several lengths, or none.
    """
    # A step of streaming training is a window of one frame.
    windows = [[entry] if isinstance(entry, Sample) else list(entry) for entry in entries]
    lengths = {len(window) for window in windows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"a batch needs windows of one length and at least one frame, not {sorted(lengths)}"
        )
    moments = list(zip(*windows, strict=True))  # B windows of T samples -> T moments of B samples
    frames = [Frame.collate(moment, images_to=device) for moment in moments]
    targets = [FrameTargets.collate(moment) for moment in moments[-num_targets:]]
    return packed_to((frames, targets), device)  # all but the images in one copy
