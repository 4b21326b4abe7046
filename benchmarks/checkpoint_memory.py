#!/usr/bin/env python
"""Peak memory and time of loading and converting checkpoints, over the size of the file.

    PYTHONPATH=tests/checkpoint python benchmarks/checkpoint_memory.py

(the names and shapes of foreign files are the tests' own). Makes files like EVA-02's detection and
ImageNet files with random values, then loads and converts each in a process of its own. The peak is
the largest resident memory of that process, less what it has after its imports; a model that is
loaded is part of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import foreign_files as foreign
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from torch import nn

from streampetr_vit.benchmark.timing import PeakMemory
from streampetr_vit.checkpoint.conversion import convert_file
from streampetr_vit.checkpoint.files import write_checkpoint
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.engine import load_config

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "configs" / "repdetr3d_eva02_l_800x320_24ep.py"

TASKS = {  # name -> file
    "load": "det.pth",
    "load-detectron2": "det.pth",
    "convert-pth": "cls.pt",
    "convert-safetensors": "cls.pt",
}


def make_files(folder: Path, depth: int) -> None:
    """Writes det.pth and cls.pt: the ViT of ViT-L's width with `depth` blocks."""
    size = replace(foreign.VIT_L, depth=depth)
    for name, key, shapes in (
        ("det.pth", "model", foreign.eva_detection(size)),
        ("cls.pt", "module", foreign.eva_pre_training(size)),
    ):
        torch.save({key: foreign.filled(shapes, foreign.random_values)}, folder / name)


def empty_model(depth: int) -> nn.Module:
    """The recipe's backbone with memory that nothing has touched yet."""
    cfg = load_config(str(RECIPE)).model.backbone
    cfg.net.depth, cfg.net.window_block_indexes = depth, [i for i in range(depth) if i % 3 != 2]
    with torch.device("meta"):
        backbone = instantiate(cfg)
    return nn.ModuleDict({"backbone": backbone}).to_empty(device="cpu")


def work(task: str, folder: Path, depth: int) -> None:
    """One measurement, in this process."""
    file, memory = folder / TASKS[task], PeakMemory(torch.device("cpu"))
    before, start = memory.gib(), time.perf_counter()
    if task.startswith("load"):
        kind = SafeCheckpointer if task == "load" else DetectionCheckpointer
        kind(empty_model(depth)).load(str(file))
    else:
        conversion = convert_file(file)
        target = folder / f"out.{task.removeprefix('convert-')}"
        write_checkpoint(target, conversion.tensors, conversion.settings)
    seconds, after, file_mb = time.perf_counter() - start, memory.gib(), file.stat().st_size / 1e6
    assert before is not None and after is not None, "the peak is known on Linux only"
    peak = (after - before) * 2**30 / 1e6
    print(
        f"{task:20} {seconds:6.1f} s   file {file_mb:7.0f} MB   peak {peak:7.0f} MB   "
        f"{peak / file_mb:.2f} x the file"
    )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=24, help="blocks of the ViT; 24 for ViT-L")
    parser.add_argument("--folder", type=Path, help="for the files, 2.5 GB; default: temporary")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        work(args.tasks[0], args.folder, args.depth)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        make_files(Path(folder), args.depth)
        options = ["--depth", str(args.depth), "--folder", folder, "--here", "--tasks"]
        for task in args.tasks:
            subprocess.run([sys.executable, __file__, *options, task], check=True)


if __name__ == "__main__":
    main()
