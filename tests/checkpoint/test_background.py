"""Saves beside the training: what the copy holds, and what a failed write does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase
from torch import nn

from streampetr_vit.checkpoint import loading
from streampetr_vit.checkpoint.background import BackgroundWriter, HostCopy, finish_writes
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.engine.checkpoint_hook import CheckpointHook
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.errors import OutputError

write_torch = loading.write_torch


class Counter(nn.Module):
    """Its weight after step i is -(i + 1), with a learning rate of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, batch: Any, memory: None) -> tuple[dict[str, torch.Tensor], None]:
        return {"loss": self.weight.sum()}, None


def make(folder: Path, **options: Any) -> tuple[StreamingTrainer, CheckpointHook]:
    model = Counter()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = StreamingTrainer(model, optimizer, [None] * 9, clip_grad_norm=None)
    hook = CheckpointHook(SafeCheckpointer(model, str(folder), trainer=trainer), 2, **options)
    trainer.register_hooks([hook])
    return trainer, hook


def saved(folder: Path, name: str) -> float:
    return float(torch.load(folder / name, weights_only=True)["model"]["weight"][0])


def test_a_copy_does_not_follow_what_it_was_made_of_and_reuses_its_place() -> None:
    copies = HostCopy()
    part = torch.arange(6.0)[2:4]
    values = {"a": [part, torch.ones(2, dtype=torch.int64)], "b": "text"}
    copy = copies.take(values)
    part.zero_()
    assert copy["a"][0].tolist() == [2, 3] and copy["b"] == "text"
    assert copy["a"][0].untyped_storage().nbytes() == 8  # of the part alone
    place = copy["a"][0].data_ptr()
    again = copies.take(values)
    assert again["a"][0].data_ptr() == place and again["a"][0].tolist() == [0, 0]
    grown = copies.take({"a": [torch.ones(3)], "b": "text"})
    assert grown["a"][0].tolist() == [1, 1, 1]


def test_steps_go_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch) -> None:
    steps_done, write_begun = threading.Event(), threading.Event()

    def slow(*args: Any) -> str:
        write_begun.set()
        assert steps_done.wait(10)  # the step after the save ends first
        return write_torch(*args)

    monkeypatch.setattr(loading, "write_torch", slow)

    class Watches(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 2:
                assert write_begun.wait(10)
                assert not (tmp_path / "model_0000001.pth").exists()
                steps_done.set()

    trainer, _ = make(tmp_path)
    trainer.register_hooks([Watches()])
    trainer.train(0, 4)
    # The copy is of the moment of the save, and the last write was waited for.
    assert saved(tmp_path, "model_0000001.pth") == -2
    assert saved(tmp_path, "model_final.pth") == -4


def test_at_most_one_write_is_under_way(tmp_path: Path, monkeypatch) -> None:
    running, most = [], []

    def watched(*args: Any) -> str:
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.05)
        running.pop()
        return write_torch(*args)

    monkeypatch.setattr(loading, "write_torch", watched)
    trainer, _ = make(tmp_path)
    trainer.train(0, 8)
    assert most == [1] * 4
    for step in (1, 3, 5):
        assert saved(tmp_path, f"model_000000{step}.pth") == -step - 1


def full_disk(*_: Any) -> str:
    raise OutputError("cannot write 'model.pth': No space left on device")


def test_a_write_that_failed_ends_the_training_at_its_next_step(
    tmp_path: Path, monkeypatch
) -> None:
    trainer, hook = make(tmp_path)
    monkeypatch.setattr(loading, "write_torch", full_disk)

    class Waits(HookBase):
        def before_step(self) -> None:
            work = hook._writer._work
            if work is not None:
                work.exception()  # wait for it, and look no further

    trainer.register_hooks([Waits()])
    with pytest.raises(OutputError, match="No space left"):
        trainer.train(0, 9)
    assert trainer.iter == 2  # the checkpoint is that of step 1


def test_a_last_write_that_failed_is_an_error_of_the_run(tmp_path: Path, monkeypatch) -> None:
    trainer, _ = make(tmp_path)
    monkeypatch.setattr(loading, "write_torch", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        trainer.train(0, 1)


def test_the_error_of_a_step_is_not_hidden_by_that_of_a_write(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    trainer, _ = make(tmp_path)
    monkeypatch.setattr(loading, "write_torch", full_disk)

    class Fails(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 1:
                raise KeyError("a fault of a hook")

    trainer.register_hooks([Fails()])
    with pytest.raises(KeyError, match="a fault of a hook"):
        trainer.train(0, 9)
    assert "the last checkpoint was not written: cannot write" in caplog.text


def test_without_a_thread_the_step_waits(tmp_path: Path, monkeypatch) -> None:
    threads = []

    def noted(*args: Any) -> str:
        threads.append(threading.current_thread() is threading.main_thread())
        return write_torch(*args)

    monkeypatch.setattr(loading, "write_torch", noted)
    make(tmp_path, background=False)[0].train(0, 3)
    make(tmp_path, background=True)[0].train(0, 3)
    assert threads == [True, True, False, False]
    assert saved(tmp_path, "model_final.pth") == -3


def test_an_error_is_raised_once() -> None:
    writer = BackgroundWriter()
    writer.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        writer.wait()
    writer.wait()
    writer.raise_error()


def test_what_is_being_written_is_waited_for_but_not_for_ever() -> None:
    writer, may_end = BackgroundWriter(), threading.Event()
    writer.start(may_end.wait)
    finish_writes(0.1)
    assert not writer._work.done()
    may_end.set()
    finish_writes(10.0)
    assert writer._work.done()
    writer.wait()
    finish_writes(10.0)  # nothing is
