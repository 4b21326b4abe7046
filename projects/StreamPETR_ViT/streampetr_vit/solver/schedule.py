"""The learning rate as a function of time and of the batch size.

Source: the released StreamPETR recipes, and its training guide for 8, 16 and 32 frames.
"""

from __future__ import annotations

import math
from itertools import pairwise

from streampetr_vit.errors import InputError

# (frames per step, learning rate) of the published recipes. The first pair makes the rate below 8
# frames proportional to the batch.
PUBLISHED_LR = ((0, 0.0), (8, 2e-4), (16, 4e-4), (32, 6e-4))


def warmup_cosine(
    iteration: int,
    progress: float,
    *,
    warmup_iters: int = 500,
    warmup_factor: float = 1 / 3,
    end_factor: float = 1e-3,
) -> float:
    """Factor in (0, 1] on each group's own learning rate: half a cosine, times a linear warm-up.

    Args:
        iteration: 0 for the first step.
        progress: part of the training that is done, 0 to 1; iteration / max_iter in the published
            recipes.
        warmup_iters: steps after which the warm-up factor is 1; 0 for no warm-up.
        warmup_factor: warm-up factor of the first step.
        end_factor: value of the cosine at progress 1.
    """
    # A step after the time limit may have a progress above 1.
    phase = math.pi * min(max(progress, 0.0), 1.0)
    cosine = end_factor + 0.5 * (1 - end_factor) * (1 + math.cos(phase))
    if iteration >= warmup_iters:
        return cosine  # before the division: warmup_iters may be 0
    # The cosine runs from the first step on: the warm-up multiplies it and does not delay it.
    return cosine * (1 - (1 - iteration / warmup_iters) * (1 - warmup_factor))


def iterations_per_epoch(num_samples: int, global_batch: int) -> int:
    """Steps in which the lanes of all ranks together see each sample about once.

    Args:
        num_samples: frames of the training set.
        global_batch: lanes per rank times the number of ranks, times batches per step.

    Raises:
        InputError: fewer samples than lanes.
    """
    if num_samples < global_batch:
        raise InputError(
            f"the training set has {num_samples} samples, fewer than the {global_batch} of a step "
            "(lanes of all processes together, times train.accumulate): lower "
            "dataloader.train.lanes_per_rank or train.accumulate, or use fewer processes"
        )
    # Rounded down, as in the published recipes: 28130 // 16 = 1758.
    return num_samples // global_batch


def batch_lr_factor(global_batch: int, lr_batch: int) -> float:
    """Factor on a recipe's learning rate for another batch.

    Between the published batches the rate lies on a straight line; beyond the largest it stays.

    Args:
        global_batch: lanes per rank times the number of ranks, times batches per step.
        lr_batch: the batch that the recipe's learning rate is meant for; for 16, the factor is 0.5,
            1, 1.5 at 8, 16, 32 frames.

    Raises:
        InputError: a batch is not positive.
    """
    if global_batch < 1 or lr_batch < 1:
        raise InputError(
            f"batch {global_batch} (lanes times processes), schedule.lr_batch={lr_batch}: both "
            "must be 1 or more"
        )
    return _published_lr(global_batch) / _published_lr(lr_batch)


def _published_lr(batch: int) -> float:
    for (low, low_lr), (high, high_lr) in pairwise(PUBLISHED_LR):
        if batch <= high:
            # `batch` lies between two published ones, or at the upper one.
            return low_lr + (high_lr - low_lr) * (batch - low) / (high - low)
    return PUBLISHED_LR[-1][1]  # nothing is published beyond
