"""The learning rate over time, as a pure function of how far training has come."""

from __future__ import annotations

import math

from streampetr_vit.errors import InputError


def warmup_cosine(
    iteration: int,
    progress: float,
    *,
    warmup_iters: int = 500,
    warmup_factor: float = 1 / 3,
    end_factor: float = 1e-3,
) -> float:
    """Factor on each group's own learning rate: half a cosine, times a linear warm-up.

    Args:
        iteration: 0 for the first step.
        progress: part of the training that lies behind this step, 0 to 1; iteration / max_iter in
            the published recipes.
        warmup_iters: steps after which the warm-up factor is 1; 0 for no warm-up.
        warmup_factor: warm-up factor of the first step.
        end_factor: value of the cosine at progress 1.

    Returns:
        The factor, in (0, 1].

    Source: the released StreamPETR recipes.
    """
    phase = math.pi * min(max(progress, 0.0), 1.0)
    cosine = end_factor + 0.5 * (1 - end_factor) * (1 + math.cos(phase))
    if iteration >= warmup_iters:
        return cosine
    return cosine * (1 - (1 - iteration / warmup_iters) * (1 - warmup_factor))


def iterations_per_epoch(num_samples: int, global_batch: int) -> int:
    """Steps in which the lanes of all ranks together see about every sample once.

    Args:
        num_samples: frames of the training set.
        global_batch: lanes per rank times the number of ranks.

    Raises:
        InputError: fewer samples than lanes.
    """
    if num_samples < global_batch:
        raise InputError(
            f"the training set has {num_samples} samples, fewer than the {global_batch} lanes of "
            "all processes together: lower dataloader.train.lanes_per_rank or use fewer processes"
        )
    return num_samples // global_batch
