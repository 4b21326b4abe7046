#!/usr/bin/env python
"""What saving a checkpoint costs a training, with the write in the step and beside it.

    python benchmarks/save_cost.py [--folder /disk/of/the/output] [key=value ...]
    python benchmarks/save_cost.py --steps 0 \\
        --config-file configs/streampetr_eva02_l_800x320_24ep.py

The first measures the quick start's model; the second has ViT-L, 4 GB of a checkpoint, and needs
three times that of memory. Weights and the optimiser's moments are random. `saves` times the parts:
`blocking_s` is torch.save and fsync, which each step waited for before saves went to the
background; `copy_s` is the copy to host memory, which it waits for now; `write_s` is the write
beside it, with the checksum; `check_s` is the comparison with that checksum, in a resume. `steps`
times a few steps with one save among them in either way, and without one; the made-up batch has
one stream.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from streampetr_vit.benchmark.inputs import made_up_batch
from streampetr_vit.benchmark.measuring import Row, as_text, describe_machine
from streampetr_vit.checkpoint.background import BackgroundWriter, HostCopy
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.checkpoint.manifest import damage
from streampetr_vit.command_line import at_least, file_path
from streampetr_vit.data.batch import Batch
from streampetr_vit.engine import build_model, load_config
from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.recipe import build_optimizer
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.errors import one_line_errors

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "quickstart.py"
NAME = "model_0000000"
PERIOD = 5  # steps with one save among them


class Saves:
    """Ways to save one training."""

    def __init__(self, checkpointer: SafeCheckpointer) -> None:
        self._checkpointer = checkpointer
        self._copy, self._writer = HostCopy(), BackgroundWriter()
        self.path = Path(checkpointer.save_dir, f"{NAME}.pth")

    def nothing(self) -> None:
        """No save."""

    def blocking(self) -> None:
        """The write itself, until it is on the disk."""
        with self.path.open("wb") as file:
            torch.save(self._checkpointer.content(iteration=0), file)
            file.flush()
            os.fsync(file.fileno())

    def in_background(self) -> None:
        """The copy, after the write before; the write goes on."""
        self.wait()
        copy = self._copy.take(self._checkpointer.content(iteration=0))
        self._writer.start(lambda: self._checkpointer.write(NAME, copy))

    def wait(self) -> None:
        """Waits for the write."""
        self._writer.wait()


def seconds_of(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def with_moments(optimizer: torch.optim.Optimizer) -> None:
    """Gives an Adam optimiser the state that it has after a step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            moments = {name: torch.rand_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.tensor(1.0), **moments}


def save_row(saves: Saves, repeats: int) -> Row:
    """The parts of a save; medians, but for the first copy, which allocates its memory."""
    columns: dict[str, list[float]] = {}

    def measured(name: str, call: Callable[[], Any]) -> None:
        columns.setdefault(name, []).append(seconds_of(call))

    for index in range(repeats):
        measured("blocking_s", saves.blocking)
        measured("copy_s" if index else "first_copy_s", saves.in_background)
        measured("write_s", saves.wait)
        measured("check_s", lambda: damage(saves.path))
    times = {name: statistics.median(found) for name, found in columns.items()}
    return {"checkpoint_gb": saves.path.stat().st_size / 1e9, **times}


def step_rows(trainer: StreamingTrainer, batch: Batch, saves: Saves, steps: int) -> list[Row]:
    """A few steps with one save among them, in each way in turn."""

    def run(save: Callable[[], None]) -> None:
        save()
        for _ in range(PERIOD):
            losses = trainer.forward(batch)
            trainer.backward(losses)
            trainer.update(losses, trainer.clip())

    ways = {
        "none": saves.nothing,
        "blocking": saves.blocking,
        "in the background": saves.in_background,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    run(saves.in_background)
    for _ in range(max(3, steps // PERIOD)):
        for name, save in ways.items():
            saves.wait()
            found[name].append(seconds_of(lambda save=save: run(save)))
    saves.wait()
    medians = {name: statistics.median(times) for name, times in found.items()}
    return [
        {
            "save": name,
            f"{PERIOD} steps_ms": 1e3 * value,
            "cost_of_the_save_ms": 1e3 * (value - medians["none"]),
        }
        for name, value in medians.items()
    ]


@one_line_errors()
def main(argv: list[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", type=file_path, default=RECIPE)
    parser.add_argument("--folder", type=file_path, help="to write in; default: a temporary one")
    parser.add_argument("--repeats", type=at_least(2), default=5, help="saves that are timed")
    parser.add_argument("--steps", type=at_least(0), default=100, help="0 leaves `steps` out")
    parser.add_argument("opts", nargs="*", help="overrides of the recipe")
    args = parser.parse_args(argv)
    cfg = load_config(str(args.config_file), args.opts)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg.optimizer, model)
    with_moments(optimizer)
    trainer = StreamingTrainer(training_module(model), optimizer, precision=cfg.train.precision)
    trainer.iter = 0  # a checkpoint has it
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        saves = Saves(SafeCheckpointer(model, folder, trainer=trainer))
        row = {"recipe": args.config_file.stem, **save_row(saves, args.repeats)}
        tables = {"machine": [describe_machine(next(model.parameters()).device)], "saves": [row]}
        if args.steps:
            height, width = cfg.dataloader.train.mapper.image_aug.final_size
            batch = made_up_batch(cfg, (height, width), 1)
            tables["steps"] = step_rows(trainer, batch, saves, args.steps)
    print(as_text(tables))


if __name__ == "__main__":
    main()
