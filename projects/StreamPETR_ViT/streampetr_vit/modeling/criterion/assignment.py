"""Optimal pairing of rows with columns for any number of cost matrices at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from streampetr_vit.structures import packed_to


def assign(costs: Sequence[Tensor]) -> list[Tensor]:
    """Pairs rows with columns, one to one, at least total cost.

    Args:
        costs: each (..., Q, n), finite, all on one device; the matrices over leading dimensions are
            independent. Q and n may differ between the entries of the list.

    Returns:
        For each entry (..., K, 2) int64 on its device, K = min(Q, n): row and column of the pairs,
        rows ascending.
    """
    if not costs:
        return []
    # scipy solves on the host: all matrices of a training step travel in one copy, and the host
    # waits for them once.
    on_host = torch.cat([cost.detach().flatten() for cost in costs]).cpu().numpy()
    pairs, start = [], 0
    for cost in costs:
        rows, columns = cost.shape[-2:]
        for _ in range(cost.shape[:-2].numel()):
            end = start + rows * columns
            solution = linear_sum_assignment(on_host[start:end].reshape(rows, columns))
            pairs.append(np.stack(solution, axis=-1))
            start = end
    # And all solutions in another. Their shapes are known here, so nothing waits for them.
    solved = packed_to(torch.from_numpy(np.concatenate(pairs)), costs[0].device)
    shapes = [(*cost.shape[:-2], min(cost.shape[-2:]), 2) for cost in costs]
    # (pairs of everything, 2) -> for each entry (..., K, 2)
    parts = solved.split([torch.Size(shape[:-1]).numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def joined_pairs(
    pairs: Sequence[Tensor], counts: Sequence[int], num_rows: int
) -> tuple[Tensor, Tensor]:
    """Pairs of several entries side by side, as indexes into their rows and columns put together.

    Args:
        pairs: of `assign`, for each of I entries (..., K_i, 2).
        counts: columns of each entry, n in all.
        num_rows: Q, rows of every entry.

    Returns:
        (..., K) int64 into the I * Q rows, and (..., K) int64 into the n columns.
    """
    firsts = [0, *accumulate(counts[:-1])]
    rows = [pair[..., 0] + entry * num_rows for entry, pair in enumerate(pairs)]
    columns = [pair[..., 1] + first for pair, first in zip(pairs, firsts, strict=True)]
    return torch.cat(rows, dim=-1), torch.cat(columns, dim=-1)
