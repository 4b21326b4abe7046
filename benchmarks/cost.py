#!/usr/bin/env python
"""What single parts cost on a CPU, in time and memory.

    python benchmarks/cost.py records --out /tmp/scale
    PYTHONPATH=tests/checkpoint python benchmarks/cost.py checkpoints
    python benchmarks/cost.py sampling [--only inference]
    python benchmarks/cost.py average

`records` repeats the tables of two synthetic scenes until they have the counts of nuScenes trainval
(850 scenes, 34,000 samples, 2.6 million records of sample_data and of ego_pose), builds the record
cache in a fresh process, opens it in another, and reads every record in several.

`checkpoints` makes files like EVA-02's detection and ImageNet files (names and shapes are the
tests' own) with random values, and loads and converts each in a fresh process. The peak is the
resident memory beyond what the process has after its imports; a loaded model is part of it.

`sampling` is one decoder layer of RepDETR3D on the pyramid of 800x320 input, on one thread, with a
fifth of the points visible, as in a real rig: inference with one stream, forward and backward with
two. Memory is what is allocated beyond the inputs.

`average` is one update of train.ema, of random weights, on one thread: the quick start's model and
ViT-L. The rate counts the average read and written and the weights read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import pickle
import re
import shutil
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from streampetr_vit.benchmark.measuring import PeakMemory, Row, alternately, as_text, time_row
from streampetr_vit.checkpoint.conversion import convert_file
from streampetr_vit.checkpoint.files import write_checkpoint
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.command_line import at_least, file_path
from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.engine import load_config
from streampetr_vit.errors import one_line_errors
from streampetr_vit.modeling.ops.deformable_aggregation import deformable_aggregation
from streampetr_vit.solver import WeightAverage
from synthetic_nuscenes import SyntheticConfig, generate

CPU, SPAWN = torch.device("cpu"), multiprocessing.get_context("spawn")
VERSION = "v1.0-trainval"
RECORDS_PER_KEY_FRAME = 11  # of a sensor: nuScenes has 77 for twelve sensors, we have seven
SHARED = ("category", "attribute", "visibility", "sensor")  # tables that every scene refers to
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPE = CONFIGS / "repdetr3d_eva02_l_800x320_24ep.py"
FILES = {"load": "det.pth", "load-detectron2": "det.pth"}  # of the tasks of `checkpoints`
FILES |= {"convert-pth": "cls.pt", "convert-safetensors": "cls.pt"}
LEVELS = ((80, 200), (40, 100), (20, 50), (10, 25))
CAMERAS, CHANNELS, GROUPS, POINTS, VISIBLE = 6, 256, 8, 13, 0.2
AVERAGED = ("quickstart", "streampetr_eva02_l_800x320_24ep")
CASES = {"inference": (1, 900), "training": (2, 1200)}  # streams and queries


def records(args: argparse.Namespace) -> list[Row]:
    """Rows of `records`."""
    if args.out.exists():  # it is removed at the end
        raise SystemExit(f"cost: error: --out {args.out} exists; name a folder that does not")
    write_tables(args.out, args.scenes)
    with SPAWN.Pool(1, maxtasksperchild=1) as pool:  # a fresh process for each task
        rows = [pool.apply(open_records, (args.out, step)) for step in ("build", "open")]
    shares = [(args.out, index, args.workers) for index in range(args.workers)]
    with SPAWN.Pool(args.workers) as pool:
        rows += pool.starmap(read_share, shares, chunksize=1)
    shutil.rmtree(args.out)
    return rows


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


def _sweep(row: Row, number: int) -> Row:
    """A record of the same sensor between two key frames."""
    names = [name for name in ("token", "ego_pose_token") if name in row]
    # Read backwards, a token is another one than that of the key frame, whatever its end.
    changed: Row = {name: f"{row[name][:1:-1]}{number:02x}" for name in names}
    changed["timestamp"] = row["timestamp"] + 45_000 * number
    return {**row, **changed, **({"is_key_frame": False} if "is_key_frame" in row else {})}


def open_records(root: Path, step: str) -> Row:
    """Builds or opens the cache: what was opened, seconds, and the peak memory of this process."""
    memory, wall, cpu = PeakMemory(CPU), time.perf_counter(), time.process_time()
    found = load_records(root, VERSION)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sizes = {
        "file_mb": found.path.stat().st_size / 1e6,
        "pickled_kb": len(pickle.dumps(found)) / 1e3,
    }
    times = {"wall_s": wall, "cpu_s": cpu, "peak_gib": memory.gib()}
    return {"step": step, "frames": len(found), **times, **sizes}


def read_share(root: Path, worker: int, workers: int) -> Row:
    """Reads a worker's share of the records; growth of its memory, and records per second."""
    before, found = _memory_mb(), load_records(root, VERSION)
    start, share = time.perf_counter(), range(worker, len(found), workers)
    for index in share:
        found[index].gt_boxes.sum()
    rate = len(share) / (time.perf_counter() - start)
    grown = {name: value - before[name] for name, value in _memory_mb().items()}
    return {"step": f"read, worker {worker}", "frames": len(share), **grown, "records_per_s": rate}


def _memory_mb() -> Row:
    """Memory of this process that no other can share, and pages of files that others can."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    mapped = kb["Shared_Clean"] + kb["Private_Clean"]
    return {"private_mb": kb["Private_Dirty"] / 1e3, "mapped_mb": mapped / 1e3}


def checkpoints(args: argparse.Namespace) -> list[Row]:
    """Rows of `checkpoints`."""
    import foreign_files as foreign  # the other sub-commands do not need the tests

    size = replace(foreign.VIT_L, depth=args.depth)
    shapes = {"det.pth": foreign.eva_detection(size), "cls.pt": foreign.eva_pre_training(size)}
    with tempfile.TemporaryDirectory() as folder:
        for name, of_it in shapes.items():
            key = "model" if name == "det.pth" else "module"
            torch.save({key: foreign.filled(of_it, foreign.random_values)}, Path(folder, name))
        with SPAWN.Pool(1, maxtasksperchild=1) as pool:
            tasks = [(task, Path(folder), args.depth) for task in args.tasks]
            return pool.starmap(read_checkpoint, tasks, chunksize=1)


def read_checkpoint(task: str, folder: Path, depth: int) -> Row:
    """Loads or converts a file in this process."""
    file, memory = folder / FILES[task], PeakMemory(CPU)
    before, start = memory.gib() or 0.0, time.perf_counter()
    if task.startswith("load"):
        cfg = load_config(str(RECIPE)).model.backbone
        cfg.net.depth, cfg.net.window_block_indexes = depth, [i for i in range(depth) if i % 3 < 2]
        with torch.device("meta"):
            model = nn.ModuleDict({"backbone": instantiate(cfg)})
        kind = SafeCheckpointer if task == "load" else DetectionCheckpointer
        kind(model.to_empty(device="cpu")).load(str(file))  # in memory that nothing has touched yet
    else:
        found = convert_file(file)
        write_checkpoint(folder / task.replace("convert-", "out."), found.tensors, found.settings)
    seconds, size = time.perf_counter() - start, file.stat().st_size
    peak = 2**30 * ((memory.gib() or 0.0) - before)
    sizes = {"file_mb": size / 1e6, "peak_mb": peak / 1e6, "peak_over_file": peak / size}
    return {"task": task, "seconds": seconds, **sizes}


def sampling(args: argparse.Namespace) -> list[Row]:
    """Rows of `sampling`."""
    torch.set_num_threads(1)
    rows = []
    for case in [args.only] if args.only else CASES:
        given = random_inputs(*CASES[case], train=case == "training")
        ways = [(kernel, chunk) for kernel in ("grid_sample", "gather") for chunk in (None, 300)]
        calls = [partial(sample, given, kernel=k, max_queries=chunk) for k, chunk in ways]
        times = alternately(calls, args.repeats)
        for (kernel, chunk), call, seconds in zip(ways, calls, times, strict=True):
            row = {"case": case, "kernel": kernel, "queries at a time": chunk or "all"}
            rows.append({**row, **time_row(seconds), "peak_mb": allocated_mb(call)})
    return rows


def random_inputs(batch: int, queries: int, train: bool) -> list[Tensor]:
    """Maps, channels last in memory as the head makes them, locations and weights."""
    torch.manual_seed(0)
    # (B, N, h, w, C) -> (B, N, C, h, w)
    maps = [torch.randn(batch, CAMERAS, *s, CHANNELS).permute(0, 1, 4, 2, 3) for s in LEVELS]
    shape = batch, CAMERAS, queries, POINTS
    hidden = torch.rand(shape) >= VISIBLE
    locations = torch.rand(*shape, 2) + 3.0 * hidden[..., None]  # pictures end at 1
    logits = torch.randn(batch, queries, CAMERAS * len(LEVELS) * POINTS, GROUPS)
    # (B, Q, N * L * P, G) -> (B, Q, N, L, P, G)
    weights = logits.softmax(2).unflatten(2, (CAMERAS, len(LEVELS), POINTS))
    return [value.requires_grad_(train) for value in (*maps, locations, weights)]


def sample(given: list[Tensor], **options: Any) -> None:
    """One inference, or one forward and backward with gradients of all inputs."""
    out = deformable_aggregation(given[:-2], *given[-2:], **options)
    if out.requires_grad:
        torch.autograd.grad(out.sum(), given)


def allocated_mb(call: partial[None]) -> float:
    """The most that is allocated at a time during a call, beyond what was there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes, initial=0)) / 1e6


def average(args: argparse.Namespace) -> list[Row]:
    """Rows of `average`."""
    torch.set_num_threads(1)
    rows = []
    for name in AVERAGED:
        with torch.device("meta"):
            model = instantiate(load_config(str(CONFIGS / f"{name}.py")).model)
        for parameter in model.to_empty(device="cpu").parameters():
            nn.init.normal_(parameter)
        weights = WeightAverage(model)
        (times,) = alternately([partial(weights.update, 1)], args.repeats, warmup=2)
        size = sum(parameter.nbytes for parameter in model.parameters())
        row = {"recipe": name, "weights_mb": size / 1e6, **time_row(times)}
        rows.append({**row, "gb_per_s": 3e-6 * size / row["p50_ms"]})
    return rows


@one_line_errors()
def main() -> None:
    """Prints the table of a sub-command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser("records").add_argument
    add("--out", type=file_path, required=True, help="new folder for 3 GB of tables")
    add("--scenes", type=at_least(2), default=850, help="an even number; default: 850")
    add("--workers", type=at_least(1), default=4)
    add = commands.add_parser("checkpoints").add_argument
    add(
        "--depth",
        type=at_least(1),
        default=24,
        help="blocks of the ViT; default: 24, 2.5 GB of files",
    )
    add("--tasks", nargs="+", default=list(FILES), choices=FILES)
    add = commands.add_parser("sampling").add_argument
    add("--repeats", type=at_least(1), default=3, help="calls that are timed, after one")
    add("--only", choices=CASES)
    add = commands.add_parser("average").add_argument
    add("--repeats", type=at_least(1), default=10, help="updates that are timed, after two")
    args = parser.parse_args()
    measures = {
        "records": records,
        "checkpoints": checkpoints,
        "sampling": sampling,
        "average": average,
    }
    print(as_text({args.command: measures[args.command](args)}))


if __name__ == "__main__":
    main()
