#!/usr/bin/env python
"""What a tracker costs for each moment, on one core.

    OMP_NUM_THREADS=1 python benchmarks/tracker_cost.py [--tracker greedy] [--boxes 300]

Objects of the seven classes stand and drive in a square, and each is seen in every moment, with a
little noise; all are above the thresholds. Ids come back as lineages, as from a network's memory.
Times are CPU times of the process, of `update` alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from streampetr_vit.benchmark.measuring import Row, as_text, describe_machine, time_row
from streampetr_vit.command_line import at_least
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import one_line_errors
from streampetr_vit.structures import GlobalBoxes, Pose
from streampetr_vit.structures.tracks import NO_ID
from streampetr_vit.tracking.building import TRACKER_NAMES, build_tracker
from streampetr_vit.tracking.classes import OFFICIAL_NAMES
from streampetr_vit.tracking.greedy import GreedyRules
from streampetr_vit.tracking.tracker import Tracker

AT_ORIGIN = Pose.of_matrix(np.eye(4))
PERIOD_S = 0.5
WARMUP = 10  # moments


def moments(boxes: int, side_m: float, count: int) -> Iterator[GlobalBoxes]:
    """Boxes of the same objects, moment by moment, without lineages."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-side_m / 2, side_m / 2, (boxes, 3))
    velocities = rng.normal(0, 2, (boxes, 2)) * (rng.random((boxes, 1)) < 0.5)
    names = tuple(OFFICIAL_NAMES[index % len(OFFICIAL_NAMES)] for index in range(boxes))
    for moment in range(count):
        moved = velocities * (PERIOD_S * moment) + rng.normal(0, 0.1, (boxes, 2))
        yield GlobalBoxes(
            sample_token=str(moment),
            center_global_m=places + np.pad(moved, ((0, 0), (0, 1))),
            size_wlh_m=np.ones((boxes, 3)),
            rotation_wxyz=np.tile([1.0, 0.0, 0.0, 0.0], (boxes, 1)),
            velocity_global_mps=velocities,
            scores=np.linspace(0.9, 0.3, boxes),
            class_names=names,
            attribute_names=("",) * boxes,
            queries=np.arange(boxes),
        )


def measure(tracker: Tracker, boxes: int, side_m: float, count: int) -> Row:
    """Times `count` moments."""
    seconds, ids = [], np.full(boxes, NO_ID, dtype=np.int64)
    for index, found in enumerate(moments(boxes, side_m, WARMUP + count)):
        seen = replace(found, lineages=ids)
        start = time.process_time()
        ids = tracker.update(seen, PERIOD_S * index, AT_ORIGIN).ids
        seconds.append(time.process_time() - start)
    return {**time_row(seconds[WARMUP:]), "tracks": len(tracker.table)}


@one_line_errors()
def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tracker", choices=TRACKER_NAMES, nargs="*", default=TRACKER_NAMES)
    parser.add_argument("--boxes", type=at_least(1), default=300, help="of a moment")
    parser.add_argument("--side", type=at_least(1), default=100, help="of the square, in metres")
    parser.add_argument("--moments", type=at_least(1), default=200, help="that are timed")
    args = parser.parse_args()
    greedy = {
        "uniform": GreedyRules(),
        "per_class": GreedyRules("per_class"),
        "uniform, Hungarian": GreedyRules(hungarian=True),
        "per_class, Hungarian": GreedyRules("per_class", hungarian=True),
    }
    chosen = {("greedy", options): rules for options, rules in greedy.items()}
    chosen |= {(name, ""): name for name in TRACKER_NAMES if name != "greedy"}
    rows = [
        {"tracker": name, "options": options}
        | measure(build_tracker(rules, NUSCENES), args.boxes, args.side, args.moments)
        for (name, options), rules in chosen.items()
        if name in args.tracker
    ]
    machine = describe_machine(torch.device("cpu"))
    print(as_text({"machine": [machine], f"update of {args.boxes} boxes": rows}))


if __name__ == "__main__":
    main()
