#!/usr/bin/env python
"""Every check that needs a GPU, in under nine minutes; prints its table last.

    python benchmarks/gpu_checks.py [--minutes 8]

Runs the tests marked `gpu`, times forward and training step of the ViT-L detectors, measures what
matching and losses cost in a step, and spends what is left of the time on the quick start's GPU
recipe.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import instantiate
from matching_cost import measure
from omegaconf import DictConfig

from streampetr_vit.data.synthetic import PRESETS, generate
from streampetr_vit.engine import load_config
from streampetr_vit.engine.config import call
from streampetr_vit.engine.trainer import autocast

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "output" / "gpu_checks"
DATA = ROOT / "data" / "synthetic_gpu"


def first_batch(cfg: DictConfig) -> list[dict]:
    """The first training batch of the recipe, from the synthetic set."""
    generate(PRESETS["gpu"], DATA)
    cfg.dataloader.train.mapper.image_aug.resize_range = [0.94, 1.25]  # of 800x450 pictures
    dataset = dict(root=str(DATA), version=PRESETS["gpu"].version, split="train")
    loader = call(cfg.dataloader.train, dataset=dataset, num_workers=0, rank=0, world_size=1)
    return next(iter(loader))


def timed(function, repeats: int = 10) -> float:
    """Median milliseconds of a call, after three to warm up."""
    seconds = []
    for repeat in range(3 + repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        if repeat >= 3:
            seconds.append(time.perf_counter() - start)
    return 1e3 * sorted(seconds)[len(seconds) // 2]


def time_vit_l(recipe: str, precision: str, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Milliseconds and memory of a ViT-L detector at 800x320 with random weights."""
    cfg = load_config(str(ROOT / "configs" / f"{recipe}_eva02_l_800x320_24ep.py"), overrides)
    model = instantiate(cfg.model).cuda()
    torch.cuda.reset_peak_memory_stats()
    two = first_batch(cfg)

    def forward() -> None:
        with torch.no_grad(), autocast(precision, "cuda"):
            model.reset_streams()
            model(two[:1])

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(precision, "cuda"):
            losses = model(two)
        sum(losses.values()).backward()

    model.eval()
    forward_ms = timed(forward)
    model.train()
    step_ms = timed(step, repeats=5)
    peak = torch.cuda.max_memory_allocated() / 2**30
    return {"forward, 1 frame (ms)": forward_ms, "step, 2 frames (ms)": step_ms, "peak GiB": peak}


def run(*command: str) -> tuple[bool, float]:
    """Runs a command in the repository; whether it succeeded, and its seconds."""
    start = time.monotonic()
    return subprocess.run(command, cwd=ROOT).returncode == 0, time.monotonic() - start


def quickstart(seconds: float) -> dict[str, float]:
    """Metrics of the GPU quick start after so many seconds of training."""
    arguments = [f"train.max_seconds={seconds:.0f}", f"train.output_dir={OUTPUT}"]
    succeeded, _ = run(sys.executable, "tools/quickstart.py", *arguments)
    if not succeeded:
        return {"failed": 1.0}
    summary = json.loads((OUTPUT / "inference" / "metrics_summary.json").read_text())
    return {"training s": seconds, "mAP": summary["mean_ap"], "NDS": summary["nd_score"]}


def main() -> None:
    """Runs the checks and prints their table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_checks: error: no CUDA device; nothing was checked")
    start = time.monotonic()
    passed, _ = run(sys.executable, "-m", "pytest", "-q", "-m", "gpu")
    rows = [("tests marked gpu", {"passed": float(passed)})]
    for precision in ("float32", "bf16", "fp16"):
        rows.append((f"StreamPETR ViT-L, {precision}", time_vit_l("streampetr", precision)))
        torch.cuda.empty_cache()
    for kernel in ("grid_sample", "gather"):
        option = [f"model.head.decoder.sampling_kernel={kernel}"]
        rows.append((f"RepDETR3D, bf16, {kernel}", time_vit_l("repdetr3d", "bf16", option)))
        torch.cuda.empty_cache()
    cfg = load_config(str(ROOT / "configs/quickstart_gpu.py"), ["dataloader.train.num_workers=4"])
    rows.append(("losses of a step (ms)", measure(cfg, steps=10)))
    left = 60 * args.minutes - (time.monotonic() - start) - 90  # for data and two evaluations
    if left > 30:
        rows.append(("quick start", quickstart(left)))
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, {time.strftime('%F')}")
    for name, values in rows:
        print(f"{name:<28}" + "  ".join(f"{key} {value:.4g}" for key, value in values.items()))
    sys.exit(0 if passed and "failed" not in rows[-1][1] else 1)


if __name__ == "__main__":
    main()
