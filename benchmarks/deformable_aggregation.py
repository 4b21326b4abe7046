#!/usr/bin/env python
"""Time and memory of the sampling of image features on a CPU, ours and a straightforward one.

    python benchmarks/deformable_aggregation.py [--only inference]

One call (one decoder layer) on the pyramid of EVA-02 at 800x320: inference with one stream, and
forward and backward of a training step with two. The straightforward way samples every group on its
own, keeps the samples of all levels and multiplies afterwards. Memory is the largest amount that is
allocated during the call beyond its inputs, counted by a profiler in a call of its own. About a
fifth of the points lie in a picture, as in a real rig.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from streampetr_vit.benchmark.timing import alternately, median
from streampetr_vit.modeling.ops.deformable_aggregation import deformable_aggregation

LEVELS = ((80, 200), (40, 100), (20, 50), (10, 25))
CAMERAS, CHANNELS, GROUPS, POINTS, VISIBLE = 6, 256, 8, 13, 0.2
CASES = {"inference": (1, 900), "training": (2, 1200)}  # streams and queries


def group_by_group(maps: list[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """Each group sampled for itself, all levels kept until one sum at the end."""
    batch, groups = weights.shape[0], weights.shape[-1]
    grid = 2 * locations.flatten(0, 1) - 1
    sums = []
    for group in range(groups):
        sampled = [
            F.grid_sample(values.chunk(groups, 2)[group].flatten(0, 1), grid, align_corners=False)
            for values in maps
        ]
        stacked = torch.stack(sampled, -2).unflatten(0, (batch, -1))  # (B, N, J, Q, L, P)
        weight = weights[..., group].transpose(1, 2).unsqueeze(2)  # (B, N, 1, Q, L, P)
        sums.append((stacked * weight).sum((1, 4, 5)))  # (B, J, Q)
    return torch.cat(sums, 1).transpose(1, 2)


WAYS: dict[str, Callable[..., Tensor]] = {"group by group": group_by_group}
for _kernel in ("grid_sample", "gather"):
    WAYS[_kernel] = partial(deformable_aggregation, kernel=_kernel)
    WAYS[f"{_kernel}, 300 queries at a time"] = partial(WAYS[_kernel], max_queries=300)


def inputs(batch: int, queries: int, train: bool) -> list[Tensor]:
    """Random maps, channels last in memory as the head makes them, locations and weights."""
    torch.manual_seed(0)
    # (B, N, h, w, C) -> (B, N, C, h, w)
    maps = [torch.randn(batch, CAMERAS, *s, CHANNELS).permute(0, 1, 4, 2, 3) for s in LEVELS]
    shape = batch, CAMERAS, queries, POINTS
    visible = torch.rand(shape) < VISIBLE
    locations = torch.rand(*shape, 2) + torch.where(visible, 0.0, 3.0)[..., None]
    logits = torch.randn(batch, queries, CAMERAS * len(LEVELS) * POINTS, GROUPS)
    weights = logits.softmax(2).unflatten(2, (CAMERAS, len(LEVELS), POINTS))
    return [value.requires_grad_(train) for value in (*maps, locations, weights)]


def call(way: Callable[..., Tensor], given: list[Tensor]) -> None:
    """One inference, or one forward and backward with gradients of all inputs."""
    out = way(given[:-2], given[-2], given[-1])
    if out.requires_grad:
        torch.autograd.grad(out.sum(), given)


def peak_mb(work: Callable[[], None]) -> float:
    """The most that is allocated at a time during the work, beyond what was there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes, initial=0)) / 1e6


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="calls that are timed, after one")
    parser.add_argument("--only", choices=CASES)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| case | way | time (ms) | memory (MB) |\n|---|---|---:|---:|")
    for case, (batch, queries) in CASES.items():
        if args.only in (None, case):
            given = inputs(batch, queries, case == "training")
            work = {name: partial(call, way, given) for name, way in WAYS.items()}
            times = alternately(list(work.values()), torch.device("cpu"), args.repeats)
            for (name, one), seconds in zip(work.items(), times, strict=True):
                row = f"{1e3 * median(seconds):.0f} | {peak_mb(one):.0f}"
                print(f"| {case}, B={batch}, Q={queries} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
