#!/usr/bin/env python
"""Kills a short training again and again: its end is that of one that was left alone.

    python benchmarks/crash_test.py [--kills 40] [--seed 0] [--processes 1] [key=value ...]
    python benchmarks/crash_test.py --config-file configs/quickstart_repdetr3d.py train.accumulate=2

Makes a little synthetic data in a temporary folder and trains on it, on the CPU, twice: once
without a stop, and once with SIGKILL to all processes of the run at random moments. Half of the
kills come at any moment of the steps, a quarter while a checkpoint is written, and a quarter while
the program starts and reads one. `--resume` follows each. The status is 1 if an attempt fails, or
if any tensor or setting in the two final checkpoints differs, but for the wall time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from streampetr_vit.command_line import at_least, file_path
from streampetr_vit.engine import load_config
from synthetic_nuscenes import SyntheticConfig, generate

ROOT = Path(__file__).resolve().parents[1]
DATA = SyntheticConfig(train_scenes=3, val_scenes=1, frames=7, image_width=128, image_height=72)
# Everything random is on, and the recipe is as small as it can be.
SMALL = [
    "dataloader.evaluator=null",
    "report=null",
    "dataloader.train.mapper.image_aug.final_size=[48,128]",
    "dataloader.train.mapper.image_aug.resize_range=[0.95,1.1]",
    "dataloader.train.mapper.image_aug.flip_probability=0.5",
    "dataloader.train.mapper.cache_images=False",
    "model.backbone.net.img_size=48",
    "model.backbone.net.window_size=2",
    "model.backbone.net.global_window_size=3",
    "model.backbone.net.depth=2",
    "model.backbone.net.drop_path_rate=0.2",
    "model.head.decoder.num_layers=2",
    "model.head.decoder.feedforward_dim=64",
    "model.head.decoder.dropout=0.1",
    "train.precision=bf16",
    "train.ema={decay:0.9,warmup_iters:10,start_iter:2}",
    "train.max_seconds=null",
    "train.num_threads=1",
]
WALL_TIME = ".elapsed_s"
AIMS = ("step", "save", "step", "start")  # of the kills, in turn
PERIOD, SAVE_S, POLL_S = 4, 0.05, 0.002
END = "too late, at the end"
STARTED = "training from iteration"  # in the log of every attempt


def first_difference(one: Any, other: Any, name: str = "") -> str | None:
    """The name of the first entry in which two checkpoints differ, bit by bit; None if in none."""
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return f"{name}: {list(one)} and {list(other)}"
        pairs = [(one[key], other[key], f"{name}.{key}".lstrip(".")) for key in one]
    elif isinstance(one, (list, tuple)) and type(one) is type(other) and len(one) == len(other):
        pairs = [(a, b, f"{name}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        same_kind = one.dtype == other.dtype and one.shape == other.shape
        return None if same_kind and torch.equal(one, other) else name
    else:
        return None if name.endswith(WALL_TIME) or one == other else f"{name}: {one} and {other}"
    return next(filter(None, itertools.starmap(first_difference, pairs)), None)


def small(config_file: str | Path, data: Path, *more: str) -> list[str]:
    """Arguments of the training command: a quick start's recipe at a tiny size.

    Args:
        config_file: one of the quick start's kind.
        data: folder of a set that `DATA` describes.
        more: overrides of all that.
    """
    overrides = [*SMALL, f"train.checkpointer.period={PERIOD}", *more]
    parts = {"train": "mini_train", "test": "mini_val"}
    datasets = [
        f"dataloader.{part}.dataset={{root:'{data}',version:{DATA.version},split:{split}}}"
        for part, split in parts.items()
    ]
    return ["--config-file", str(config_file), *datasets, *overrides]


@dataclass
class Run:
    """A training in a folder of its own, which may be killed.

    Attributes:
        folder: of its output.
        words: the arguments of the training command.
        processes: that train.
    """

    folder: Path
    words: list[str]
    processes: int

    @contextmanager
    def attempt(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Starts the command in a process group, of which nothing is left after the block."""
        command = [sys.executable, str(ROOT / "tools" / "lazyconfig_train_net.py"), *options]
        # --num-gpus counts the processes on a CPU, too.
        command += ["--num-gpus", str(self.processes), *self.words]
        command += ["train.device=cpu", f"train.output_dir='{self.folder}'"]
        with self.terminal.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def terminal(self) -> Path:
        """What the last attempt has printed."""
        return self.folder.with_suffix(".txt")

    def wait_to_start(self, process: subprocess.Popen[bytes]) -> None:
        """Waits until the steps begin, or the process ends."""
        while process.poll() is None and STARTED not in self.terminal.read_text(errors="replace"):
            time.sleep(10 * POLL_S)

    def finish(self, *options: str) -> tuple[float, float]:
        """Lets an attempt come to its end; seconds until its steps began, and those after."""
        begin = time.monotonic()
        with self.attempt(*options) as process:
            self.wait_to_start(process)
            started = time.monotonic()
            if process.wait() != 0:
                self.fail()
        return started - begin, time.monotonic() - started

    def fail(self) -> NoReturn:
        """Ends the program with the last words of the last attempt."""
        lines = self.terminal.read_text(errors="replace").splitlines()
        raise SystemExit("\n".join(["crash_test: an attempt failed:", *lines[-30:]]))

    def temporary(self) -> set[Path]:
        """Files that are being written, or were when the program was killed."""
        return set(self.folder.glob("*.tmp"))

    def steps_taken(self) -> int:
        """Steps of all attempts, as far as metrics.json has them."""
        lines = [s for p in self.folder.rglob("metrics.json") for s in p.read_text().splitlines()]
        return sum(1 for line in lines if line.endswith("}") and "total_loss" in json.loads(line))

    def final(self) -> dict[str, Any]:
        """The final checkpoint."""
        return torch.load(self.folder / "model_final.pth", weights_only=True)


def kill_once(run: Run, aim: str, draw: random.Random, start_s: float, span_s: float) -> str:
    """Starts an attempt and kills it; says what it hit.

    Args:
        run: that goes on.
        aim: one of `AIMS`.
        draw: of the moment.
        start_s: how long an attempt takes to come to its first step.
        span_s: within how many seconds from there it is killed.
    """
    before = run.temporary()  # of the kill before; the program removes them when it starts
    with run.attempt("--resume") as process:
        if aim == "start":
            time.sleep(draw.uniform(0, start_s))
        else:
            run.wait_to_start(process)
            time.sleep(draw.uniform(0, span_s))
        while aim == "save" and process.poll() is None and not run.temporary() - before:
            time.sleep(POLL_S)
        if aim == "save":
            time.sleep(draw.uniform(0, SAVE_S))
        status = process.poll()
    if status is not None:
        return END if status == 0 else run.fail()
    if not (run.folder / "last_checkpoint").exists():
        return "before the first checkpoint"
    if run.temporary() - before:
        return "during a write"
    has_started = STARTED in run.terminal.read_text(errors="replace")
    return "between writes" if has_started else "during the start"


def crash(run: Run, kills: int, seed: int, start_s: float, span_s: float) -> Counter[str]:
    """Kills a run so many times, and lets it come to its end; what the kills have hit."""
    draw, hits = random.Random(seed), Counter[str]()
    for number in range(kills):
        aim = AIMS[number % len(AIMS)]
        what = kill_once(run, aim, draw, start_s, span_s)
        print(f"kill {number + 1} of {kills}: {what}", flush=True)
        if what == END:
            break
        hits[what] += 1
    run.finish("--resume")
    return hits


def main(argv: list[str] | None = None) -> None:
    """Trains twice and compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=at_least(1), default=40)
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the moments")
    parser.add_argument("--processes", type=at_least(1), default=1, help="that train")
    parser.add_argument("--steps", type=at_least(1), help="default: 10 for each kill, 20 at least")
    recipe = ROOT / "configs" / "quickstart.py"
    parser.add_argument("--config-file", type=file_path, default=recipe)
    parser.add_argument("opts", nargs="*", help="overrides of the recipe")
    args = parser.parse_args(argv)
    begin, steps = time.monotonic(), args.steps or max(20, 10 * args.kills)
    with tempfile.TemporaryDirectory(prefix="crash_test_") as folder:
        data = generate(DATA, Path(folder, "data"), workers=1)
        more = [f"train.max_iter={steps}", "train.log_period=1", *args.opts]
        words = small(args.config_file, data, *more)
        load_config(words[1], words[2:])  # a wrong override fails here
        whole, cut = (Run(Path(folder, name), words, args.processes) for name in ("whole", "cut"))
        start_s, train_s = whole.finish()
        print(f"untouched: {steps} steps in {train_s:.0f} s, {start_s:.1f} s to start", flush=True)
        hits = crash(cut, args.kills, args.seed, start_s, train_s / args.kills)
        difference = first_difference(whole.final(), cut.final())
        repeated = cut.steps_taken() - steps
        left = len(cut.temporary())
    of_them = ", ".join(f"{count} {what}" for what, count in sorted(hits.items()))
    result = "equal" if difference is None else f"NOT EQUAL, first in {difference}"
    print(
        f"{sum(hits.values())} kills ({of_them}); {repeated} steps repeated; {left} temporary "
        f"files left; {time.monotonic() - begin:.0f} s; {result}"
    )
    sys.exit(0 if difference is None else 1)


if __name__ == "__main__":
    main()
