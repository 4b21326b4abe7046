#!/usr/bin/env python
"""Time and memory of the sampling of image features, ours and a straightforward one.

    python benchmarks/deformable_aggregation.py [--device cuda] [--threads 1] [--queries 900 1200]

One call (one decoder layer) on the pyramid of EVA-02 at 800x320: inference with one stream, and
forward and backward of a training step with two. The straightforward way samples every group on its
own, keeps the samples of all levels and multiplies afterwards. Memory is the largest amount that is
allocated during the call beyond its inputs; on the CPU it is counted by a profiler in a call of its
own. About a fifth of the points lie in a picture, as in a real rig.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from streampetr_vit.modeling.ops.deformable_aggregation import deformable_aggregation

LEVELS = ((80, 200), (40, 100), (20, 50), (10, 25))
GROUPS, POINTS = 8, 13
VISIBLE = 0.2
Aggregation = Callable[[list[Tensor], Tensor, Tensor], Tensor]


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


def ways(max_queries: int) -> dict[str, Aggregation]:
    """What is compared."""
    in_parts = f", {max_queries} queries at a time"
    return {
        "group by group": group_by_group,
        "grid_sample": deformable_aggregation,
        "grid_sample" + in_parts: partial(deformable_aggregation, max_queries=max_queries),
        "gather": partial(deformable_aggregation, kernel="gather"),
        "gather" + in_parts: partial(
            deformable_aggregation, kernel="gather", max_queries=max_queries
        ),
    }


def inputs(
    batch: int, queries: int, cameras: int, channels: int, shrink: int, device: torch.device
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Random maps, channels last in memory as the head makes them, locations and weights."""
    torch.manual_seed(0)
    sizes = [(max(height // shrink, 1), max(width // shrink, 1)) for height, width in LEVELS]
    maps = [
        torch.randn(batch, cameras, *size, channels).permute(0, 1, 4, 2, 3).to(device)
        for size in sizes
    ]
    shape = batch, cameras, queries, POINTS
    visible = torch.rand(shape) < VISIBLE
    locations = torch.rand(*shape, 2) + torch.where(visible, 0.0, 3.0)[..., None]
    logits = torch.randn(batch, queries, cameras * len(sizes) * POINTS, GROUPS)
    weights = logits.softmax(2).unflatten(2, (cameras, len(sizes), POINTS))
    return maps, locations.to(device), weights.to(device)


def call(run: Aggregation, given: tuple[list[Tensor], Tensor, Tensor], train: bool) -> None:
    """One inference, or one forward and backward with gradients of all inputs."""
    maps, locations, weights = given
    with torch.set_grad_enabled(train):
        if not train:
            run(maps, locations, weights)
            return
        leaves = [value.detach().requires_grad_() for value in (*maps, locations, weights)]
        run(leaves[:-2], leaves[-2], leaves[-1]).sum().backward()


def peak_mb(work: Callable[[], None], device: torch.device) -> float:
    """The most that is allocated at a time during the work, beyond what was there."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes, initial=0)) / 1e6


def milliseconds(work: Callable[[], None], device: torch.device, repeats: int) -> float:
    """Median of some calls, after one to warm up."""
    work()
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        samples.append(1e3 * (time.perf_counter() - start))
    return statistics.median(samples)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--repeats", type=int, default=3, help="calls that are timed, after one")
    parser.add_argument(
        "--queries", type=int, nargs=2, default=(900, 1200), help="of inference and of training"
    )
    parser.add_argument("--max-queries", type=int, default=300, help="at a time, in parts")
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--shrink", type=int, default=1, help="divides the maps' sides")
    parser.add_argument("--only", choices=("inference", "training"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    name = platform.machine() if device.type == "cpu" else torch.cuda.get_device_name(device)
    threads = f", {args.threads} threads" if device.type == "cpu" else ""
    print(f"{name}{threads}, torch {torch.__version__}, {time.strftime('%F')}\n")
    print("| case | way | time (ms) | memory (MB) |\n|---|---|---:|---:|")
    cases = {"inference": (1, args.queries[0], False), "training": (2, args.queries[1], True)}
    for case, (batch, queries, train) in cases.items():
        if args.only not in (None, case):
            continue
        given = inputs(batch, queries, args.cameras, args.channels, args.shrink, device)
        for way, run in ways(args.max_queries).items():
            work = partial(call, run, given, train)
            time_ms = milliseconds(work, device, args.repeats)
            memory = peak_mb(work, device)
            label = f"{case}, B={batch}, Q={queries}"
            print(f"| {label} | {way} | {time_ms:.0f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
