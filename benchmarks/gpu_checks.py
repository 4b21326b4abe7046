#!/usr/bin/env python
"""Every check that needs a GPU, the most valuable first; the table grows, a JSON line ends it.

    python benchmarks/gpu_checks.py [--minutes 8]

Runs the tests marked `gpu`, then tools/benchmark.py on the ViT-L recipes, each part in a process of
its own with a time limit, and the quick start's GPU recipe in what is left. A part that fails is a
row with its error, the others still run, and the exit status is 1. What the parts print:
output/gpu_checks/.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from streampetr_vit.benchmark.measuring import Row, describe_machine
from streampetr_vit.command_line import above_0
from streampetr_vit.errors import one_line_errors

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "output" / "gpu_checks"
SMALL = "configs/streampetr_eva02_l_800x320_24ep.py"
LARGE = "configs/streampetr_eva02_l_1600x640_24ep.py"
SAMPLING = "configs/repdetr3d_eva02_l_800x320_24ep.py"
DATA_SET = OUTPUT / "data_set"
DATA = (  # 240 training pictures of 800x450
    f"dataloader.train.dataset={{root:'{DATA_SET}',version:v1.0-mini,split:mini_train}}",
    "dataloader.train.num_workers=8",
    "dataloader.train.mapper.image_aug.resize_range=[0.94,1.25]",
)
# Columns of a table that others say already.
_LEFT_OUT = ("tflop", "tflops", "us_per_token", "precision", "not_run")


class Part(NamedTuple):
    """One process."""

    name: str  # in the table, and of its files
    limit_s: float  # after which it is ended
    command: tuple[str, ...]  # after "python"; "{seconds}" is the time that it gets for training


def benchmark(name: str, limit_s: float, *options: str) -> Part:
    """A run of tools/benchmark.py in bf16: sub-command, recipe, further options."""
    command, recipe, *rest = options
    common = ("--config-file", recipe, "--device", "cuda", "--precision", "bf16")
    common += ("--peak-seconds", "1", "--output", str(OUTPUT / f"{name}.json"))
    return Part(name, limit_s, ("tools/benchmark.py", command, *common, *rest))


def parts() -> list[Part]:
    """All parts, the most valuable first."""
    pictures = f"--scenes 4 --val-scenes 1 --frames 10 --image-size 800x450 --out {DATA_SET}"
    graph, plain, two = "--cuda-graph", ("--compare", "plain"), ("--batch", "2")
    few, from_data = ("--repeats", "5"), ("--data", "--checkpointing", "block", *DATA)
    kernel = "model.head.decoder.sampling_kernel="
    quickstart = ("train.max_seconds={seconds}", f"train.output_dir={OUTPUT / 'quickstart'}")
    return [
        Part("tests", 120, ("-m", "pytest", "-q", "-m", "gpu")),
        benchmark("small_frame", 80, "latency", SMALL, *plain),
        benchmark("small_frame_graph", 60, "latency", SMALL, graph),
        benchmark("training_batch_2", 80, "train", SMALL, *two, *few),
        benchmark("large_frame_graph", 60, "latency", LARGE, graph),
        benchmark("small_frame_compiled_graph", 150, "latency", SMALL, "--compile", graph),
        benchmark("training_batch_1", 80, "train", SMALL, *few),
        benchmark("attention", 60, "attention", SMALL),
        benchmark("large_frame", 80, "latency", LARGE, *plain),
        Part("data_set", 30, ("tools/make_synthetic_nuscenes.py", *pictures.split())),
        benchmark("data", 60, "data", SMALL, "--workers", "0,8", *DATA),
        benchmark("training_pictures", 60, "train", SMALL, *two, *from_data),
        benchmark("repdetr3d", 45, "latency", SAMPLING, graph, f"{kernel}grid_sample"),
        benchmark("repdetr3d_gather", 45, "latency", SAMPLING, f"{kernel}gather"),
        Part("quickstart", 600, ("tools/quickstart.py", *quickstart)),
    ]


def run_part(part: Part, left_s: float, output: Path = OUTPUT) -> list[Row]:
    """Runs a part within its limit; the rows that it wrote, or one that says how it ended."""
    limit = min(part.limit_s, left_s)
    training = limit - 120  # the quick start's data and two evaluations need the rest
    if limit < 1 or (training < 30 and any("{seconds}" in word for word in part.command)):
        return [{"not run": "no time left"}]
    command = [word.replace("{seconds}", f"{training:.0f}") for word in part.command]
    output.mkdir(parents=True, exist_ok=True)
    log, result = output / f"{part.name}.log", output / f"{part.name}.json"
    result.unlink(missing_ok=True)  # of an earlier run
    with log.open("w") as sink:
        # A group of its own: what a part has started ends with it.
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            status = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return [{"error": f"ended after its {limit:.0f} s; see {log}"}]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    rows: list[Row] = []
    if result.exists():  # also of a run in which one row failed
        for table, found in json.loads(result.read_text())["tables"].items():
            kept = ({k: v for k, v in row.items() if k not in _LEFT_OUT} for row in found)
            rows += [{"table": table, **row} for row in kept if len(row) > 1]
    last = next(iter(log.read_text(errors="replace").strip().splitlines()[-1:]), "no output")
    if status and not any("error" in row for row in rows):
        rows.append({"error": f"exit status {status}: {last}"})
    return rows or [{"passed": last}]


def check(chosen: Sequence[Part], seconds: float, output: Path = OUTPUT) -> list[Row]:
    """Runs the parts and prints each row as it comes, then all of them as one line of JSON."""
    end, table = time.monotonic() + seconds, []
    for part in chosen:
        for row in run_part(part, end - time.monotonic(), output):
            table.append({"part": part.name, **row})
            cells = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print(f"{part.name:<28}{'  '.join(cells)}", flush=True)
    machine = describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(json.dumps({"machine": machine, "rows": table}))
    return table


@one_line_errors()
def main() -> None:
    """Runs the checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=above_0, default=8.0, help="time for everything")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_checks: error: no CUDA device; nothing was checked")
    table = check(parts(), 60 * args.minutes)
    sys.exit(1 if any("error" in row for row in table) else 0)


if __name__ == "__main__":
    main()
