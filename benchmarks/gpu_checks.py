#!/usr/bin/env python
"""Every check that needs a GPU, in under nine minutes; prints its table last.

    python benchmarks/gpu_checks.py [--minutes 8.5]

Runs the tests marked `gpu`, then tools/benchmark.py on the ViT-L recipes, each part in a process of
its own with a time limit, and spends what is left on the quick start's GPU recipe. A part that
fails is a row with its error, the others still run, and the exit status is 1. Output of the parts:
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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from streampetr_vit.benchmark.machine import processor_name
from streampetr_vit.benchmark.peak import measure_peak
from streampetr_vit.benchmark.report import first_line
from synthetic_nuscenes import SyntheticConfig, generate

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
Tables = dict[str, list[Row]]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        small, large: StreamPETR recipes at two resolutions.
        sampling: a RepDETR3D recipe.
        device, precision: of all of them.
        repeats: of each measurement.
        output: folder for what the parts print and write.
        workers: of the loader.
        graphs: whether there are CUDA graphs to measure.
    """

    small: str = "configs/streampetr_eva02_l_800x320_24ep.py"
    large: str = "configs/streampetr_eva02_l_1600x640_24ep.py"
    sampling: str = "configs/repdetr3d_eva02_l_800x320_24ep.py"
    device: str = "cuda"
    precision: str = "bf16"
    repeats: int = 20
    output: Path = ROOT / "output" / "gpu_checks"
    workers: int = 8
    graphs: bool = True


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: in the table.
        command: its arguments, Python first.
        limit_s: after which it is ended.
        rows: makes table rows of the JSON file's tables; None where the command writes none.
        optional: no error if there is no time for it.
    """

    name: str
    command: list[str]
    limit_s: float
    rows: Callable[[Tables], list[Row]] | None = None
    optional: bool = False


def frame_rows(tables: Tables) -> list[Row]:
    """Whole frames, their stages and the comparison with the plain form."""
    rows = [
        _only(row, "form", "p50_ms", "p90_ms", "fps", "share_of_peak", "peak_memory_gib")
        for row in tables["frame"]
    ]
    for form in ("fast", "plain"):
        stages = tables.get(f"stages, {form}", [])
        if stages:
            rows.append({"form": f"{form}, ms", **{r["stage"]: r["p50_ms"] for r in stages}})
        rows += [
            {"form": form, "backbone share_of_peak": row["share_of_peak"]}
            for row in stages
            if row["stage"] == "backbone"
        ]
    return rows + tables.get("fast against plain", [])


def training_rows(tables: Tables) -> list[Row]:
    """Steps with the share of matching and losses, forward and backward."""
    shares = {row["checkpointing"]: row for row in tables["shares of all steps"]}
    rows = []
    for row in tables["step"]:
        share = shares.get(row["checkpointing"])
        if share is not None:
            row = row | {
                "losses": share["loss"] + share["loss_backward"],
                "data wait": share["data"],
            }
        rows.append(row)
    return rows


def kernel_rows(tables: Tables) -> list[Row]:
    """Milliseconds of each kernel, a row for each window shape."""
    return [
        {"windows": shape, **{row["kernel"]: row.get("p50_ms", row.get("error")) for row in rows}}
        for shape, rows in tables.items()
    ]


def loading_rows(tables: Tables) -> list[Row]:
    """The rates by workers."""
    return tables["loader"]


def _only(row: Row, *names: str) -> Row:
    return {name: row[name] for name in names if name in row}


def parts(plan: Plan, peak_tflops: float, data: list[str]) -> list[Part]:
    """All parts that write JSON.

    Args:
        plan: what is measured.
        peak_tflops: the machine's matrix peak.
        data: overrides that name a data set; empty leaves out the parts that read pictures.
    """

    def part(name: str, limit_s: float, rows: Callable[[Tables], list[Row]], *options: str) -> Part:
        command, recipe, *rest = options
        common = ["--config-file", recipe, "--device", plan.device, "--precision", plan.precision]
        common += ["--peak-tflops", f"{peak_tflops:.6g}", "--repeats", f"{plan.repeats}"]
        output = ["--output", str(plan.output / f"{_file_name(name)}.json")]
        tool = [sys.executable, "tools/benchmark.py", command]
        return Part(name, [*tool, *common, *output, *rest], limit_s, rows)

    found = []
    for size, recipe in (("small", plan.small), ("large", plan.large)):
        frame = ("latency", recipe)
        found.append(part(f"{size} frame", 80, frame_rows, *frame, "--compare", "plain"))
        if plan.graphs:
            found.append(part(f"{size} frame, graph", 60, frame_rows, *frame, "--cuda-graph"))
    if plan.graphs:
        both = ("latency", plan.small, "--compile", "--cuda-graph")
        found.append(part("small frame, compiled, graph", 150, frame_rows, *both))
    few = ("--repeats", f"{min(plan.repeats, 5)}")
    for batch in ("1", "2"):
        step = ("train", plan.small, "--batch", batch, *few)
        found.append(part(f"training, batch {batch}", 80, training_rows, *step))
    found.append(part("attention", 60, kernel_rows, "attention", plan.small))
    if data:
        found += reading_parts(part, plan, data)
    for size, recipe in (("small", plan.small), ("large", plan.large)):
        compiled = part(f"{size} frame, compiled", 120, frame_rows, "latency", recipe, "--compile")
        found.append(replace(compiled, optional=size == "large"))
    for kernel in ("grid_sample", "gather"):
        option = f"model.head.decoder.sampling_kernel={kernel}"
        frame = ("latency", plan.sampling, option)
        extra = part(f"RepDETR3D, {kernel}", 45, frame_rows, *frame)
        found.append(replace(extra, optional=True))
    return found


def reading_parts(part: Callable[..., Part], plan: Plan, data: list[str]) -> list[Part]:
    """The parts that read pictures; arguments as in `parts`, and its maker of a part."""
    loader = ("data", plan.small, "--workers", f"0,{plan.workers}", *data)
    step = ("train", plan.small, "--batch", "2", "--data", "--checkpointing", "block", *data)
    return [
        part("data", 60, loading_rows, *loader),
        part("training, pictures", 60, training_rows, *step),
    ]


def run_part(part: Part, left_s: float, output: Path) -> list[Row]:
    """Runs a part within its limit and what is left of the time.

    Returns:
        Its rows; one with an error where it failed, or had no time.
    """
    limit = min(part.limit_s, left_s)
    if limit < 1:
        return [{"not run" if part.optional else "error": "no time left"}]
    output.mkdir(parents=True, exist_ok=True)
    log = output / f"{_file_name(part.name)}.log"
    result = output / f"{_file_name(part.name)}.json"
    result.unlink(missing_ok=True)  # of an earlier run
    print(f"{part.name} ...", flush=True)
    start = time.monotonic()
    with open(log, "w") as sink:
        # A group of its own: what a part has started ends with it.
        process = subprocess.Popen(
            part.command, cwd=ROOT, stdout=sink, stderr=sink, start_new_session=True
        )
        try:
            status = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return [{"error": f"ended after its {limit:.0f} s; see {log}"}]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
    if part.rows is not None and result.exists():  # also of a run in which one row failed
        try:
            rows = part.rows(json.loads(result.read_text())["tables"])
        except (KeyError, ValueError) as error:
            return [{"error": f"{result}: {first_line(error)}"}]
        if status and not any("error" in row for row in rows):
            rows.append({"error": f"exit status {status}; see {log}"})
        return rows
    if status:
        return [{"error": f"exit status {status}: {lines[-1]}"}]
    return [{"passed": lines[-1], "seconds": time.monotonic() - start}]


def _file_name(part_name: str) -> str:
    return part_name.replace(", ", "_").replace(" ", "_")


def small_data_set(plan: Plan) -> list[str]:
    """Makes 240 training pictures of 800x450; the overrides that name them."""
    config = SyntheticConfig(
        train_scenes=4, val_scenes=1, frames=10, image_width=800, image_height=450
    )
    root = generate(config, plan.output / "data_set")
    fitting = "dataloader.train.mapper.image_aug.resize_range=[0.94,1.25]"
    return [*data_overrides(plan, root, config), fitting]


def data_overrides(plan: Plan, root: Path, config: SyntheticConfig) -> list[str]:
    """What makes a recipe read a synthetic data set."""
    split, _ = config.split_names
    return [
        f"dataloader.train.dataset={{root:'{root}',version:{config.version},split:{split}}}",
        f"dataloader.train.num_workers={plan.workers}",
    ]


def quickstart(plan: Plan, seconds: float) -> list[Row]:
    """Metrics of the GPU quick start after so many seconds of training."""
    folder = plan.output / "quickstart"
    options = [f"train.max_seconds={seconds:.0f}", f"train.output_dir={folder}"]
    command = [sys.executable, "tools/quickstart.py", *options]
    rows = run_part(Part("quick start", command, seconds + 120), seconds + 120, plan.output)
    if "error" in rows[0]:
        return rows
    summary = json.loads((folder / "inference" / "metrics_summary.json").read_text())
    return [{"training s": seconds, "mAP": summary["mean_ap"], "NDS": summary["nd_score"]}]


def check(plan: Plan, seconds: float, tests: Part) -> list[Row]:
    """All rows of the table; a part that fails does not stop the others.

    Args:
        plan: what is measured.
        seconds: for everything.
        tests: the part that comes first.
    """
    end = time.monotonic() + seconds
    table = [{"part": tests.name, **row} for row in run_part(tests, seconds, plan.output)]
    try:
        peak = measure_peak(torch.device(plan.device), plan.precision).tflops
        table.append({"part": f"matrix peak, {plan.precision}", "TFLOP/s": peak})
        if plan.device == "cuda":
            torch.cuda.empty_cache()
    except Exception as error:  # whatever it is, the table is still wanted
        return [*table, {"part": "matrix peak", "error": first_line(error)}]
    data: list[str] = []
    try:
        data = small_data_set(plan)
    except Exception as error:
        table.append({"part": "data set", "error": first_line(error)})
    for part in parts(plan, peak, data):
        rows = run_part(part, end - time.monotonic(), plan.output)
        table += [{"part": part.name, **row} for row in rows]
    left = end - time.monotonic() - 120  # for its data and two evaluations
    if plan.device == "cuda" and left > 30:
        table += [{"part": "quick start", **row} for row in quickstart(plan, left)]
    return table


def print_table(table: list[Row], device: torch.device) -> None:
    """One line for each row."""
    print(f"\n{processor_name(device)}, torch {torch.__version__}, {time.strftime('%F')}")
    for row in table:
        values = (
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
            for k, v in row.items()
            if k != "part" and v is not None
        )
        print(f"{row['part']:<24}" + "  ".join(values))


def main() -> None:
    """Runs the checks and prints their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.5, help="time for everything")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_checks: error: no CUDA device; nothing was checked")
    tests = Part("tests marked gpu", [sys.executable, "-m", "pytest", "-q", "-m", "gpu"], 120)
    table = check(Plan(), 60 * args.minutes, tests)
    print_table(table, torch.device("cuda"))
    sys.exit(1 if any("error" in row for row in table) else 0)


if __name__ == "__main__":
    main()
