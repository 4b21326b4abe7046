"""A training that is killed and resumed ends bit-equal to one that was never touched.

Real recipes at a tiny size, through the real command: 30 steps in one go, and 11 steps, SIGKILL to
all processes, --resume and the rest. A checkpoint is written every four steps, so that the resume
takes three of the steps once more.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lazyconfig_train_net as tool
import pytest
import torch
import torch.multiprocessing as mp
from crash_test import DATA, first_difference, small
from detectron2.config import LazyCall as L
from detectron2.engine import HookBase

from streampetr_vit.data.build import build_window_loader
from streampetr_vit.data.workers import worker_context
from streampetr_vit.engine import load_config, train, trainer
from streampetr_vit.engine.run_folder import save_config
from synthetic_nuscenes import generate

ROOT = Path(__file__).resolve().parents[2]
STEPS, KILLED_AFTER = 30, 11
REAL_MAIN = tool.main
Change = Callable[[], None]  # of the command, in its process


class KillHook(HookBase):
    """Ends its process after a step, as a power cut would."""

    def after_step(self) -> None:
        if self.trainer.iter + 1 == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_main(args: argparse.Namespace) -> None:
    """One process of the command, with a hook that kills it."""
    tool.train = partial(train, more_hooks=[KillHook()])
    REAL_MAIN(args)


def command(words: list[str], change: Change) -> None:
    """tools/lazyconfig_train_net.py in this process, which has imported much already."""
    sys.argv = ["lazyconfig_train_net.py", *words]
    mp.start_processes = partial(mp.start_processes, start_method="forkserver")
    change()
    tool.invoke_main()


def nothing() -> None:
    """The command as it is."""


def kill() -> None:
    """All processes of the command are killed."""
    tool.main = killed_main


def forget_draws() -> None:
    """Random numbers go on from those of the start of the process."""
    trainer.seed_draws = lambda *_: None


@dataclass(frozen=True)
class Case:
    """A recipe and how it runs."""

    recipe: str
    windows: bool = False
    processes: int = 1
    workers: int = 0
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = self.recipe, "windows" if self.windows else "streams", *self.more
        return f"{' '.join(parts)}, {self.processes} processes, {self.workers} workers"


def config_of(case: Case, data: Path, folder: Path) -> str:
    """Writes the case's recipe as a file and returns its path."""
    file = ROOT / "configs" / f"{case.recipe}.py"
    words = [f"train.max_iter={STEPS}", "train.device=cpu", "train.log_period=1"]
    _, path, *overrides = small(file, data, *words, *case.more)
    cfg = load_config(path, overrides)
    loader = cfg.dataloader.train
    if case.windows:
        cfg.dataloader.train = L(build_window_loader)(
            dataset=loader.dataset,
            mapper=loader.mapper,
            window_length=3,
            lanes_per_rank=1,
            num_workers=0,
            seed="${train.seed}",
        )
        cfg.model.window.num_frame_losses = cfg.model.window.num_frame_head_grads = 2
    save_config(cfg, str(folder))
    return str(folder / "config.yaml")


class Runs:
    """Runs cases; a run that was never stopped is made once."""

    def __init__(self, folder: Path) -> None:
        worker_context()  # the server that all processes are forked from
        self._folder = folder
        self._data = generate(DATA, folder / "data", workers=1)
        self._whole: dict[str, Path] = {}

    def whole(self, case: Case) -> Path:
        """The output folder of the run in one go, which loads its data itself."""
        alone = Case(case.recipe, case.windows, case.processes, 0, case.more)
        if str(alone) not in self._whole:
            self._whole[str(alone)] = self._run(alone, self.new_folder())
        return self._whole[str(alone)]

    def killed(self, case: Case) -> Path:
        """The output folder of a run that was killed."""
        folder = self._run(case, self.new_folder(), change=kill)
        assert not (folder / "model_final.pth").exists()
        # The step after which it is killed does not wait for the write of the eighth.
        assert (folder / "last_checkpoint").read_text() in (
            "model_0000003.pth",
            "model_0000007.pth",
        )
        return folder

    def resumed(self, case: Case, folder: Path, change: Change = nothing) -> dict[str, Any]:
        """The final checkpoint of a run that is resumed."""
        self._run(case, folder, "--resume", change=change)
        log = (folder / "log.txt").read_text()
        assert re.findall(r"training from iteration (\d+)", log) in (["0", "4"], ["0", "8"])
        return final(folder)

    def new_folder(self) -> Path:
        return self._folder / f"run_{len(list(self._folder.iterdir()))}"

    def _run(self, case: Case, folder: Path, *options: str, change: Change = nothing) -> Path:
        recipe = config_of(case, self._data, folder / "recipe")
        words = [*options, "--num-gpus", str(case.processes), "--config-file", recipe]
        words += [f"dataloader.train.num_workers={case.workers}", f"train.output_dir={folder}"]
        process = get_context("forkserver").Process(target=command, args=(words, change))
        process.start()
        process.join()
        assert (process.exitcode != 0) == (change is kill), (folder / "log.txt").read_text()[-3000:]
        return folder


def final(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "model_final.pth", weights_only=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("exact_resume"))


STREAMPETR, REPDETR3D = "quickstart", "quickstart_repdetr3d"
# Every pair of head, streams or windows, processes and workers. The other products were equal, too.
CASES = [
    Case(STREAMPETR),
    Case(STREAMPETR, processes=2, workers=2, more=("train.accumulate=2",)),
    Case(STREAMPETR, windows=True, workers=2),
    Case(REPDETR3D, workers=2, more=("train.precision=float32",)),
    Case(REPDETR3D, windows=True, processes=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_killed_run_ends_as_one_that_was_never_touched(case: Case, runs: Runs) -> None:
    resumed = runs.resumed(case, runs.killed(case))
    whole = final(runs.whole(case))
    assert {"model", "ema", "trainer", "memories"} <= set(whole)
    assert first_difference(whole, resumed) is None


def test_the_memories_and_the_draws_are_what_makes_it_equal(runs: Runs) -> None:
    """Resumed without one of them, the same run ends elsewhere: the equality proves something."""
    case = CASES[0]
    whole, folder = final(runs.whole(case)), runs.killed(case)
    without_memories = shutil.copytree(folder, runs.new_folder())
    path = without_memories / (folder / "last_checkpoint").read_text()
    torch.save({**torch.load(path, weights_only=True), "memories": None}, path)
    (without_memories / "checkpoints.sha256").unlink()  # it would refuse the changed file
    assert first_difference(whole, runs.resumed(case, without_memories)).startswith("model.")
    assert first_difference(whole, runs.resumed(case, folder, forget_draws)).startswith("model.")
