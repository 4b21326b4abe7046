"""Tables of the size of nuScenes trainval -> records: time, memory, and what workers cost.

Writes tables with the real counts (850 scenes, 34,000 samples, 2.6 million records of sample_data
and of ego_pose, 1.2 million annotations; made-up content, no pictures), builds the record cache in
a fresh process, opens it in another, and reads every record in several worker processes.

Example:
    python benchmarks/records_at_scale.py --out /tmp/scale
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streampetr_vit.data.nuscenes.build_records import load_records
from synthetic_nuscenes import write_scale_tables

VERSION = "v1.0-trainval"


def in_fresh_process(function: Callable[..., Any], *arguments: object) -> dict[str, Any]:
    """Runs a function in a spawned process: its result, wall and CPU seconds, peak memory in GB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (function, arguments))


def _measured(function: Callable[..., Any], arguments: tuple[object, ...]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return {
        "result": result,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def open_records(root: Path) -> dict[str, int]:
    """Builds or opens the cache; what was opened."""
    records = load_records(root, VERSION)
    return {
        "frames": len(records),
        "boxes": int(records.boxes_per_class(10).sum()),
        "file_bytes": records.path.stat().st_size,
        "pickled_bytes": len(pickle.dumps(records)),
    }


def read_all(root: Path, worker: int, workers: int) -> dict[str, float]:
    """Reads a worker's share of the records; growth of its memory, and records per second."""
    private, mapped = _memory_mb()
    records = load_records(root, VERSION)
    started, share = time.perf_counter(), range(worker, len(records), workers)
    for index in share:
        records[index].gt_boxes.sum()
    rate = len(share) / (time.perf_counter() - started)
    private_after, mapped_after = _memory_mb()
    return {
        "private_mb": private_after - private,
        "mapped_mb": mapped_after - mapped,
        "records_per_s": rate,
    }


def _memory_mb() -> tuple[float, float]:
    """Memory of this process that no other can share, and pages of files that others can."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kb["Private_Dirty"] / 1e3, (kb["Shared_Clean"] + kb["Private_Clean"]) / 1e3


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for 3 GB of tables")
    parser.add_argument("--scenes", type=int, default=850)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--keep", action="store_true", help="leave the tables there")
    arguments = parser.parse_args()
    root = arguments.out
    if not (root / VERSION).is_dir():
        write_scale_tables(root, arguments.scenes)
    shutil.rmtree(root / ".streampetr_vit", ignore_errors=True)

    total = sum(path.stat().st_size for path in (root / VERSION).iterdir())
    print(f"tables: {total / 1e9:.2f} GB")
    for title in ("built", "opened"):
        run = in_fresh_process(open_records, root)
        print(
            f"{title}: {run['wall_s']:.2f} s ({run['cpu_s']:.2f} s of CPU), peak "
            f"{run['peak_gb']:.2f} GB, {run['result']}"
        )
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        shares = [(root, worker, arguments.workers) for worker in range(arguments.workers)]
        for worker, values in enumerate(pool.starmap(read_all, shares)):
            text = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
            print(f"worker {worker}: {text}")
    if not arguments.keep:
        shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
