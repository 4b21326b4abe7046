"""An evaluation that a stop has prevented is made up for when the run goes on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import lazyconfig_train_net
import pytest
import torch
from detectron2.engine import HookBase, default_argument_parser
from toy_task import ToyEvaluator, equal

from streampetr_vit.engine import load_config, train
from streampetr_vit.engine.processes import launch
from streampetr_vit.engine.signals import Interrupted

CONFIG = str(Path(__file__).with_name("toy_config.py"))
# The error grows, so that the first evaluation is the best.
WORDS = ["train.max_iter=12", "train.eval_period=3", "train.checkpointer.period=3"]
WORDS += ["train.log_period=1", "train.best_checkpoint={metric:toy/error,mode:max}"]
WORDS += ["train.ema={decay:0.5}", "model.remembers=True", "optimizer.lr=0.2"]


class Terminated(HookBase):
    """Gets SIGTERM in a step."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


def run(output: Path, *more: str, resume: bool = False, hooks: tuple[HookBase, ...] = ()) -> None:
    torch.manual_seed(0)  # the start weights
    train(load_config(CONFIG, [*WORDS, *more, f"train.output_dir={output}"]), resume, hooks)


def evaluations(output: Path) -> list[tuple[int, float, float]]:
    """The step of each evaluation, with its metric of the weights and of the average."""
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [
        (row["iteration"], row["toy/error"], row["toy_ema/error"])
        for row in rows
        if "toy/error" in row
    ]


def best(output: Path) -> dict:
    return torch.load(output / "model_best.pth", weights_only=True)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A run without a stop."""
    run(tmp_path / "whole")
    assert [step for step, *_ in evaluations(tmp_path / "whole")] == [2, 5, 8, 12]
    assert best(tmp_path / "whole")["iteration"] == 2
    return tmp_path / "whole"


def check_equal(one: Path, other: Path) -> None:
    assert evaluations(one) == evaluations(other)
    assert best(one)["iteration"] == best(other)["iteration"]
    assert best(one)["trainer"]["iteration"] == best(other)["trainer"]["iteration"]
    for name in ("model", "ema", "memories"):
        assert equal(best(one)[name], best(other)[name])


def test_after_a_signal_in_the_step_before_it(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", hooks=(Terminated(2),))
    assert evaluations(tmp_path / "cut") == []
    run(tmp_path / "cut", resume=True)
    check_equal(tmp_path / "cut", whole)


def test_after_a_signal_in_the_middle_of_it(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ToyEvaluator, "evaluate", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run(tmp_path / "cut")
        with pytest.raises(Interrupted):  # and once more, in the one that is made up for
            run(tmp_path / "cut", resume=True)
    run(tmp_path / "cut", resume=True)
    check_equal(tmp_path / "cut", whole)


def test_one_that_is_noted_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "train.checkpointer.max_to_keep=null")
    before = evaluations(tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000008.pth")
    run(tmp_path, resume=True)
    assert evaluations(tmp_path) == [*before, before[-1]]
    # That of the end of a run stands in the row after its last step.
    run(tmp_path, "train.max_iter=14", resume=True)
    assert [step for step, *_ in evaluations(tmp_path)] == [2, 5, 8, 12, 12, 14]


def test_two_processes_make_up_for_it(tmp_path: Path, quick_processes: None) -> None:
    words = [*WORDS, "dataloader.train.lanes_per_rank=2", f"train.output_dir={tmp_path}"]
    arguments = default_argument_parser().parse_args(["--config-file", CONFIG, "--resume", *words])
    launch(lazyconfig_train_net.main, (arguments,), num_processes=2, use_gpu=False)
    before = evaluations(tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000008.pth")
    (tmp_path / "metrics.json").unlink()
    launch(lazyconfig_train_net.main, (arguments,), num_processes=2, use_gpu=False)
    assert evaluations(tmp_path) == before[2:]
