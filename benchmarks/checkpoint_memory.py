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
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import foreign_files as foreign
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from streampetr_vit.checkpoint.conversion import convert_file
from streampetr_vit.checkpoint.files import write_checkpoint
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid, ViT

TASKS = ("load", "load-detectron2", "convert-pth", "convert-safetensors")


def make_files(folder: Path, depth: int) -> None:
    """Writes det.pth and cls.pt: the ViT of ViT-L's width with `depth` blocks."""
    size = replace(foreign.VIT_L, depth=depth)
    detection = foreign.filled(foreign.eva_detection(size), foreign.random_values)
    torch.save({"model": detection}, folder / "det.pth")
    del detection
    torch.save(
        {"module": foreign.filled(foreign.eva_pre_training(size), foreign.random_values)},
        folder / "cls.pt",
    )


def empty_model(depth: int) -> nn.Module:
    """The backbone with memory that nothing has touched yet."""
    with torch.device("meta"):
        vit = ViT(
            img_size=320,
            embed_dim=1024,
            depth=depth,
            num_heads=16,
            window_size=16,
            global_window_size=20,
            window_block_indexes=[i for i in range(depth) if i % 3 != 2],
        )
        pyramid = SimpleFeaturePyramid(vit, "last_feat", 256, (4, 2, 1, 0.5), half_scale="max_pool")
    return nn.ModuleDict({"backbone": pyramid}).to_empty(device="cpu")


def peak_mb() -> float:
    """Largest resident memory of this process so far.

    Of Linux; getrusage tells that of the process that started this one if it was larger.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "/proc/self/status has no VmHWM"
    return int(found[1]) / 1e3


def work(task: str, folder: Path, depth: int) -> None:
    """One measurement, in this process."""

    def load(checkpointer: type) -> None:
        checkpointer(empty_model(depth)).load(str(folder / "det.pth"))

    def convert(name: str, ending: str) -> None:
        conversion = convert_file(folder / name)
        write_checkpoint(folder / f"out.{ending}", conversion.tensors, conversion.settings)

    tasks: dict[str, tuple[str, Callable[[], None]]] = {
        "load": ("det.pth", lambda: load(SafeCheckpointer)),
        "load-detectron2": ("det.pth", lambda: load(DetectionCheckpointer)),
        "convert-pth": ("cls.pt", lambda: convert("cls.pt", "pth")),
        "convert-safetensors": ("cls.pt", lambda: convert("cls.pt", "safetensors")),
    }
    name, run = tasks[task]
    before, start = peak_mb(), time.perf_counter()
    run()
    seconds, file_mb = time.perf_counter() - start, (folder / name).stat().st_size / 1e6
    peak = peak_mb() - before
    print(
        f"{task:20} {seconds:6.1f} s   file {file_mb:7.0f} MB   peak {peak:7.0f} MB   "
        f"{peak / file_mb:.2f} x the file"
    )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=24, help="blocks of the ViT; 24 for ViT-L")
    parser.add_argument("--folder", type=Path, help="for the files, 2.5 GB; default: temporary")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        work(arguments.tasks[0], arguments.folder, arguments.depth)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        make_files(Path(folder), arguments.depth)
        options = ["--depth", str(arguments.depth), "--folder", folder, "--here", "--tasks"]
        for task in arguments.tasks:
            subprocess.run([sys.executable, __file__, *options, task], check=True)


if __name__ == "__main__":
    main()
