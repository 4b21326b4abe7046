"""A checkpoint that cannot be written ends the run in one line, and the one before stays good."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase
from omegaconf import DictConfig

from streampetr_vit.checkpoint.manifest import damage
from streampetr_vit.engine import load_config, train
from streampetr_vit.errors import OutputError

CONFIG = str(Path(__file__).with_name("toy_config.py"))
STEPS, PERIOD, FULL_AFTER = 12, 2, 5  # model_0000005.pth is the first that cannot be written
SMALL_BYTES = 1 << 17  # more than a log has, less than a checkpoint


def toy(output: Path, *words: str) -> DictConfig:
    settings = [f"train.max_iter={STEPS}", f"train.checkpointer.period={PERIOD}"]
    # Its checkpoint has 600 kB.
    return load_config(
        CONFIG, [*settings, "model.width=8000", *words, f"train.output_dir={output}"]
    )


class Breaking(HookBase):
    """Breaks the disk before a step, when the checkpoint of the steps before is written."""

    def __init__(self, folder: Path, break_disk: Callable[[], None]) -> None:
        self._folder, self._break_disk = folder, break_disk

    def before_step(self) -> None:
        if self.trainer.iter == FULL_AFTER:
            end = time.monotonic() + 20
            while (self._folder / "last_checkpoint").read_text() != "model_0000003.pth":
                assert time.monotonic() < end
                time.sleep(0.01)
            self._break_disk()


def fill() -> None:
    """No file can grow any more, and the system says so."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_BYTES, most))


def make_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be made or replaced any more, as after an error of the disk."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(os, "replace", refuse)


def free_again() -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


@pytest.fixture(autouse=True)
def space_at_the_end() -> Iterator[None]:
    yield
    free_again()


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_disk_that_takes_no_more_ends_the_run_and_leaves_the_last_good_checkpoint(
    tmp_path: Path, disk: str, background: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = f"train.checkpointer.background={background}"
    with monkeypatch.context() as patch:
        hook = Breaking(tmp_path, fill if disk == "full" else lambda: make_read_only(patch))
        reason = {"full": "File too large; free some space", "read-only": "Read-only file system"}
        with pytest.raises(OutputError, match=rf"model_0000005\.pth': {reason[disk]}") as failure:
            train(toy(tmp_path, words), more_hooks=[hook])
        assert "\n" not in str(failure.value)
    free_again()
    last = tmp_path / (tmp_path / "last_checkpoint").read_text()
    assert last.name == "model_0000003.pth" and damage(last) is None
    assert not list(tmp_path.glob("model_0000005.pth*"))  # no half of it either
    # With space, it goes on from there to the same end as a run that was not disturbed.
    train(toy(tmp_path, words), resume=True)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    assert f'"iteration": {STEPS - 1}' in lines[-2]


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set forwards and backwards by years between any two looks at it; files get its times."""

    def trained(run: Path, after: Callable[[Path], None]) -> tuple[list[str], dict[str, Any]]:
        torch.manual_seed(0)  # of the first weights
        for steps, resume in ((7, False), (STEPS, True)):
            train(toy(run, f"train.max_iter={steps}"), resume=resume)
            after(run)
        names = sorted(path.name for path in run.glob("model_*.pth"))
        return names, torch.load(run / "model_final.pth", weights_only=True)["model"]

    def oldest_seems_newest(run: Path) -> None:
        for place, path in enumerate(sorted(run.glob("model_*.pth"), reverse=True)):
            os.utime(path, (place * 1e8, place * 1e8))

    names, weights = trained(tmp_path / "steady", lambda run: None)
    times = itertools.cycle([4e9, 1e9, 2e9, 5e8])
    monkeypatch.setattr(time, "time", lambda: next(times))
    names_then, weights_then = trained(tmp_path / "jumping", oldest_seems_newest)
    assert names_then == names and len(names) == 3
    assert all(torch.equal(weights[name], weights_then[name]) for name in weights)
