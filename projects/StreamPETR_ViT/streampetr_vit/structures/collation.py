"""Samples of several streams side by side: what a training step reads.

Shape letters: B streams, T frames of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from streampetr_vit.structures.frame import Frame
from streampetr_vit.structures.packed_copy import packed_to
from streampetr_vit.structures.sample import Sample
from streampetr_vit.structures.targets import FrameTargets


def collate_windows(
    entries: Sequence[Sample | Sequence[Sample]], device: torch.device, num_targets: int
) -> tuple[list[Frame], list[FrameTargets]]:
    """Windows of B streams as T frames, and the targets of the last ones, on the device.

    Args:
        entries: B samples, or B windows of T samples in temporal order.
        device: where to.
        num_targets: the last so many frames get targets.

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
    return packed_to((frames, targets), device)
