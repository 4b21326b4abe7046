"""The random numbers of a training step, as a function of its place in the run.

They depend on nothing else: not on the steps before, on evaluations between them, on loading
processes or on a restart. So a checkpoint holds no state of generators. The mapper's draws have
their own such rule, see `data.loaders.FrameDataset`.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_draws(seed: int, iteration: int, micro_step: int, rank: int) -> None:
    """Seeds the generators of torch (on all devices), numpy and Python with a place in the run."""
    # A hash: neighbouring places must not give related numbers.
    state = np.random.SeedSequence([seed, iteration, micro_step, rank]).generate_state(3, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
    np.random.seed(int(state[1] >> np.uint64(32)))
    random.seed(int(state[2]))
