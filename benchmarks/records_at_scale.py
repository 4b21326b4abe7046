#!/usr/bin/env python
"""Tables of the size of nuScenes trainval -> records: time, memory, and what workers cost.

    python benchmarks/records_at_scale.py --out /tmp/scale

Repeats the tables of two synthetic scenes until they have the real counts (850 scenes, 34,000
samples, 2.6 million records of sample_data and of ego_pose), builds the record cache in a fresh
process, opens it in another, and reads every record in several worker processes.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import pickle
import re
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from streampetr_vit.benchmark.timing import PeakMemory
from streampetr_vit.data.nuscenes.build_records import load_records
from synthetic_nuscenes import SyntheticConfig, generate

VERSION = "v1.0-trainval"
RECORDS_PER_KEY_FRAME = 11  # of a sensor: nuScenes has 77 for twelve sensors, we have seven
SHARED = ("category", "attribute", "visibility", "sensor")  # tables that every scene refers to


def write_tables(root: Path, scenes: int) -> None:
    """Writes tables without pictures into `root`."""
    with tempfile.TemporaryDirectory() as folder:
        config = SyntheticConfig(1, 1, frames=40, image_width=64, image_height=36, range_m=51)
        source = generate(config, Path(folder)) / config.version
        tables = {path.stem: json.loads(path.read_text()) for path in source.glob("*.json")}
    tables.pop("splits", None)  # no table
    for table in ("sample_data", "ego_pose"):
        sweeps = range(1, RECORDS_PER_KEY_FRAME)
        tables[table] += [_sweep(row, n) for row in tables[table] for n in sweeps]
    own = {row["token"] for name, rows in tables.items() if name not in SHARED for row in rows}
    first = min(row["timestamp"] for row in tables["ego_pose"])

    def marked(found: re.Match[str]) -> str:
        return f'"@@@@{found[1][4:]}"' if found[1] in own else found[0]

    def later(found: re.Match[str]) -> str:
        return f'"timestamp": ####{int(found[1]) - first:09d}'

    (root / VERSION).mkdir(parents=True)
    for name, rows in tables.items():
        text, copies = json.dumps(rows)[1:-1], 1
        if name not in SHARED:
            # What differs from copy to copy becomes a mark: four digits of a token, and seconds.
            text = re.sub(r'"([0-9a-f]{32})"', marked, text.replace('"name": "', '"name": "@@@@ '))
            text, copies = re.sub(r'"timestamp": (\d+)', later, text), scenes // 2
        with (root / VERSION / f"{name}.json").open("w") as file:
            for copy in range(copies):
                file.write(", " if copy else "[")
                file.write(text.replace("@@@@", f"{copy:04x}").replace("####", f"{1600000 + copy}"))
            file.write("]")


def _sweep(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A record of the same sensor between two key frames."""
    changed = {k: f"{row[k][:30]}{number:02x}" for k in ("token", "ego_pose_token") if k in row}
    changed["timestamp"] = row["timestamp"] + 45_000 * number
    return {**row, **changed, **({"is_key_frame": False} if "is_key_frame" in row else {})}


def open_records(root: Path) -> dict[str, float]:
    """Builds or opens the cache: what was opened, seconds, and the peak memory of this process."""
    memory = PeakMemory(torch.device("cpu"))
    wall, cpu = time.perf_counter(), time.process_time()
    records = load_records(root, VERSION)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_gib": memory.gib() or math.nan,
        "frames": len(records),
        "boxes": int(records.boxes_per_class(10).sum()),
        "file_mb": records.path.stat().st_size / 1e6,
        "pickled_kb": len(pickle.dumps(records)) / 1e3,
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
    grown = {"private_mb": private_after - private, "mapped_mb": mapped_after - mapped}
    return {**grown, "records_per_s": rate}


def _memory_mb() -> tuple[float, float]:
    """Memory of this process that no other can share, and pages of files that others can."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return kb["Private_Dirty"] / 1e3, (kb["Shared_Clean"] + kb["Private_Clean"]) / 1e3


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for 3 GB of tables")
    parser.add_argument("--scenes", type=int, default=850, help="an even number")
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    write_tables(args.out, args.scenes)
    total = sum(path.stat().st_size for path in (args.out / VERSION).iterdir())
    print(f"tables: {total / 1e9:.2f} GB")
    runs, spawn = {}, multiprocessing.get_context("spawn")
    for step in ("built", "opened"):  # each in a fresh process
        with ProcessPoolExecutor(1, spawn) as pool:
            runs[step] = pool.submit(open_records, args.out).result()
    with ProcessPoolExecutor(args.workers, spawn) as pool:
        shares = [pool.submit(read_all, args.out, n, args.workers) for n in range(args.workers)]
        runs |= {f"worker {n}": share.result() for n, share in enumerate(shares)}
    for name, values in runs.items():
        print(f"{name}: {', '.join(f'{key} {value:.5g}' for key, value in values.items())}")
    shutil.rmtree(args.out)


if __name__ == "__main__":
    main()
