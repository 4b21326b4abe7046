"""What torchrun starts again goes on, and nothing else does."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from detectron2.engine import HookBase

from streampetr_vit.engine import load_config, train
from streampetr_vit.engine.restarts import agent_of

CONFIG = str(Path(__file__).with_name("toy_config.py"))
FIRST = "/tmp/torchelastic_1/none_a"


class Broken(HookBase):
    """Ends a training before a step, or before the first."""

    def __init__(self, step: int) -> None:
        self._step = step

    def before_step(self) -> None:
        if self.trainer.iter == self._step:
            raise RuntimeError("the machine is gone")


@pytest.fixture
def start(tmp_path: Path, monkeypatch, caplog):
    """One start of the toy training; gives the line that says where it begins."""

    def started(agent: str, attempt: int = 0, breaks_at: int | None = None, *words: str) -> str:
        variable = "TORCHELASTIC_ERROR_FILE"
        if agent:
            monkeypatch.setenv(variable, f"{agent}/attempt_{attempt}/0/error.json")
        else:
            monkeypatch.delenv(variable, raising=False)
        settings = ["train.max_iter=6", "train.checkpointer.period=2", *words]
        cfg = load_config(CONFIG, [*settings, f"train.output_dir={tmp_path}"])
        caplog.clear()
        with caplog.at_level(logging.INFO, "streampetr_vit"):
            if breaks_at is None:
                train(cfg)
            else:
                with pytest.raises(RuntimeError, match="machine is gone"):
                    train(cfg, more_hooks=[Broken(breaks_at)])
        said = caplog.messages
        (line,) = [text for text in said if text.startswith("training from")]
        restarted = "torchrun has restarted this job: it goes on from its last checkpoint" in said
        assert restarted == ("from iteration 0 " not in line)
        return line

    return started


def test_a_restart_goes_on_and_a_first_start_does_not(start, tmp_path: Path) -> None:
    assert start("", 0, 5) == "training from iteration 0 to 6"  # an earlier run in the folder
    assert start(FIRST, 0, 5) == "training from iteration 0 to 6"
    assert start(FIRST, 1, 5) == "training from iteration 4 to 6"
    assert start(FIRST, 2) == "training from iteration 4 to 6"
    # Another job in the same folder, whose machine may count no restarts or one.
    assert start("/tmp/torchelastic_2/none_a", 1, 5) == "training from iteration 0 to 6"
    assert start("") == "training from iteration 0 to 6"
    assert (tmp_path / "earlier_3" / "model_0000003.pth").is_file()


def test_a_try_that_failed_early_leaves_the_earlier_run_an_earlier_one(
    start, tmp_path: Path, monkeypatch
) -> None:
    start("", 0, 5)
    with monkeypatch.context() as patch:
        patch.setattr("streampetr_vit.engine.train_loop.build_optimizer", None)
        with pytest.raises(TypeError):
            start(FIRST)
    assert start(FIRST, 1, 5) == "training from iteration 0 to 6"


def test_a_restart_before_the_first_checkpoint_starts_anew(start) -> None:
    start("", 0, 5)
    start(FIRST, 0, 1)
    assert start(FIRST, 1) == "training from iteration 0 to 6"


def test_an_agent_is_one_launch_on_one_machine(monkeypatch) -> None:
    def of(file: str) -> str:
        return agent_of({"TORCHELASTIC_ERROR_FILE": file})

    assert agent_of({}) == ""
    assert of(f"{FIRST}/attempt_0/1/error.json") == of(f"{FIRST}/attempt_3/0/error.json")
    before = of(f"{FIRST}/attempt_0/1/error.json")
    assert before != of("/tmp/torchelastic_1/none_b/attempt_0/1/error.json")
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert before != of(f"{FIRST}/attempt_0/1/error.json")
