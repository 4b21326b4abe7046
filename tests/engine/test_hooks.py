"""Learning rates, the time budget, and what checkpoints know about the stream."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from toy_task import ToyDetector, build_toy_train_loader

from streampetr_vit.checkpoint.loading import SafeCheckpointer, read_checkpoint
from streampetr_vit.checkpoint.manifest import read_manifest
from streampetr_vit.engine.checkpoint_hook import CheckpointHook
from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.hooks import ScheduleHook
from streampetr_vit.engine.stream_hooks import StreamStateHook
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.errors import OutputError
from streampetr_vit.solver import backbone_lr_groups


class FakeClock:
    """A clock that advances by `step_s` each time it is read."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def make_trainer() -> StreamingTrainer:
    torch.manual_seed(0)
    model = ToyDetector()
    groups = backbone_lr_groups(model, lr=0.02, weight_decay=0.01)
    module = training_module(model)
    return StreamingTrainer(module, torch.optim.AdamW(groups), build_toy_train_loader())


def logged_lr(trainer: StreamingTrainer) -> list[float]:
    return [value for value, _ in trainer.storage.history("lr").values()]


def test_every_group_follows_the_schedule_from_its_own_rate() -> None:
    trainer = make_trainer()
    trainer.register_hooks([ScheduleHook(lambda it, progress: 1 - progress, trainer.optimizer)])
    trainer.train(0, 4)
    assert logged_lr(trainer) == pytest.approx([0.02, 0.015, 0.01, 0.005])
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([5e-4, 5e-3])


def test_rates_after_a_resume_follow_the_new_plan() -> None:
    trainer = make_trainer()
    trainer.register_hooks([ScheduleHook(lambda it, progress: 1 - progress, trainer.optimizer)])
    trainer.train(0, 4)
    trainer.train(4, 8)
    assert logged_lr(trainer) == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_time_budget_drives_progress_and_ends_training(tmp_path: Path) -> None:
    trainer = make_trainer()
    hook = ScheduleHook(
        lambda it, progress: 1 - progress, trainer.optimizer, max_seconds=10, clock=FakeClock(2.5)
    )
    checkpointer = SafeCheckpointer(trainer.model, str(tmp_path), trainer=trainer)
    trainer.register_hooks([hook, CheckpointHook(checkpointer, period=1000)])
    trainer.train(0, 1000)
    assert trainer.iter == 4
    assert logged_lr(trainer) == pytest.approx([0.02, 0.015, 0.01, 0.005])
    assert (tmp_path / "model_final.pth").exists()


def test_iterations_count_when_they_are_further_along_than_time() -> None:
    trainer = make_trainer()
    clock = FakeClock(0.001)
    trainer.register_hooks(
        [ScheduleHook(lambda it, progress: 1 - progress, trainer.optimizer, 10, clock)]
    )
    trainer.train(0, 4)
    assert logged_lr(trainer) == pytest.approx([0.02, 0.015, 0.01, 0.005])


def test_time_before_a_resume_counts() -> None:
    def run(elapsed_s: float) -> int:
        trainer = make_trainer()
        hook = ScheduleHook(lambda it, progress: 1.0, trainer.optimizer, 10, FakeClock(2.5))
        hook.load_state_dict({"elapsed_s": elapsed_s})
        trainer.register_hooks([hook])
        trainer.train(0, 1000)
        return trainer.iter

    assert run(0.0) == 4
    assert run(5.0) == 2
    assert run(10.0) == 0


def test_the_position_of_the_stream_is_restored() -> None:
    loader = build_toy_train_loader()
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    resumed = build_toy_train_loader()
    StreamStateHook(resumed).load_state_dict(StreamStateHook(loader).state_dict())
    assert torch.equal(next(iter(resumed))[0]["x"], next(batches)[0]["x"])


def test_a_loader_of_other_frames_does_not_go_on() -> None:
    """Such as one with another seed, which keeps its own position."""

    class Refuses:
        def state_dict(self) -> dict[str, int]:
            return {"delivered": 0, "seed": 1}

        def load_state_dict(self, state: dict[str, int]) -> None: ...

    hook = StreamStateHook(Refuses())
    hook.load_state_dict({"delivered": 5, "seed": 0})
    assert not hook.continues
    hook.load_state_dict({"delivered": 0, "seed": 1})
    assert hook.continues


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


def train_with_checkpoints(folder: Path, start: int, end: int, **options: int) -> None:
    trainer = make_trainer()
    checkpointer = SafeCheckpointer(trainer.model, str(folder), trainer=trainer)
    trainer.register_hooks([CheckpointHook(checkpointer, **options)])
    trainer.train(start, end)


def test_checkpoints_of_earlier_starts_count(tmp_path: Path) -> None:
    for name in ("model_best.pth", "model_0001.pth", "other_0000001.pth"):
        (tmp_path / name).write_bytes(b"of the user")
    own = {path.name for path in tmp_path.iterdir()}
    for start, expected in ((0, [1]), (3, [1, 3]), (5, [3, 5]), (7, [5, 7])):
        train_with_checkpoints(tmp_path, start, start + 3, period=2, max_to_keep=2)
        numbered = {f"model_{iteration:07d}.pth" for iteration in expected}
        assert set(checkpoints(tmp_path)) == own | numbered | {"model_final.pth"}
    # A run that went back counts anew from there: the newest file stays, whatever its number.
    train_with_checkpoints(tmp_path, 0, 3, period=2, max_to_keep=1)
    assert set(checkpoints(tmp_path)) == own | {"model_0000001.pth", "model_final.pth"}


def test_the_manifest_lists_what_is_there_and_no_removed_file(tmp_path: Path) -> None:
    trainer = make_trainer()
    checkpointer = SafeCheckpointer(trainer.model, str(tmp_path), trainer=trainer)
    trainer.register_hooks([CheckpointHook(checkpointer, 2, max_to_keep=2), _FailsAt(8)])
    with pytest.raises(RuntimeError):  # the last write has removed a file
        trainer.train(0, 20)
    assert checkpoints(tmp_path) == ["model_0000005.pth", "model_0000007.pth"]
    assert list(read_manifest(tmp_path)) == checkpoints(tmp_path)


def test_the_checkpoint_to_resume_from_stays_whatever_the_clock_says(tmp_path: Path) -> None:
    train_with_checkpoints(tmp_path, 0, 3, period=2, max_to_keep=1)
    os.utime(tmp_path / "model_0000001.pth", (2**32, 2**32))  # the clock was wrong then
    trainer = make_trainer()
    checkpointer = SafeCheckpointer(trainer.model, str(tmp_path), trainer=trainer)
    trainer.register_hooks([CheckpointHook(checkpointer, period=2, max_to_keep=1)])
    with pytest.raises(RuntimeError):
        trainer.register_hooks([_FailsAt(4)])
        trainer.train(3, 9)
    last = (tmp_path / "last_checkpoint").read_text()
    assert last == "model_0000003.pth" and (tmp_path / last).is_file()


def test_a_checkpoint_that_a_resume_went_back_to_stays_until_there_is_a_newer_one(
    tmp_path: Path,
) -> None:
    train_with_checkpoints(tmp_path, 0, 5, period=2, max_to_keep=2)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    trainer = make_trainer()
    checkpointer = SafeCheckpointer(trainer.model, str(tmp_path), trainer=trainer)
    hook = CheckpointHook(checkpointer, period=9, max_to_keep=1)

    class Saves(HookBase):
        def after_step(self) -> None:
            hook.save_as("model_best", is_last=False)

    trainer.register_hooks([hook, Saves()])
    with pytest.raises(RuntimeError):
        trainer.register_hooks([_FailsAt(3)])
        trainer.train(2, 9)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    found = {"model_0000001.pth", "model_0000003.pth", "model_best.pth", "model_final.pth"}
    assert set(checkpoints(tmp_path)) == found


@pytest.mark.parametrize("period", [9, 5])  # 5: the step has a checkpoint already
def test_the_step_that_a_later_hook_makes_the_last_has_the_final_checkpoint(
    tmp_path: Path, period: int
) -> None:
    class Ends(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 4:
                self.trainer.max_iter = 5

    trainer = make_trainer()
    checkpointer = SafeCheckpointer(trainer.model, str(tmp_path), trainer=trainer)
    trainer.register_hooks([CheckpointHook(checkpointer, period), Ends()])
    trainer.train(0, 20)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    final = read_checkpoint(tmp_path / "model_final.pth")
    assert final["iteration"] == final["trainer"]["iteration"] == 4


class _FailsAt(HookBase):
    def __init__(self, iteration: int) -> None:
        self._iteration = iteration

    def before_step(self) -> None:
        if self.trainer.iter == self._iteration:
            raise RuntimeError("before the next checkpoint")


def test_no_checkpoint_goes_before_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_with_checkpoints(tmp_path, 0, 3, period=2, max_to_keep=1)
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="cannot write"):
        train_with_checkpoints(tmp_path, 2, 6, period=2, max_to_keep=1)
    assert checkpoints(tmp_path) == ["model_0000001.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


def test_the_last_step_is_saved_once_when_asked_for(tmp_path: Path) -> None:
    trainer = make_trainer()
    checkpointer = SafeCheckpointer(trainer.model, str(tmp_path), trainer=trainer)
    hook = CheckpointHook(checkpointer, period=2)
    trainer.register_hooks([hook])
    assert hook.save_now() is None  # no step was taken
    trainer.train(0, 2)
    final = tmp_path / "model_final.pth"
    before = final.stat().st_mtime_ns
    assert hook.save_now() == str(final) and final.stat().st_mtime_ns == before


def test_a_step_after_the_last_checkpoint_is_saved_when_asked_for(tmp_path: Path) -> None:
    trainer = make_trainer()
    checkpointer = SafeCheckpointer(trainer.model, str(tmp_path), trainer=trainer)
    hook, asked = CheckpointHook(checkpointer, period=2), []

    class Asks(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 2:
                asked.append(hook.save_now())

    trainer.register_hooks([hook, Asks()])
    trainer.train(0, 6)
    assert asked == [str(tmp_path / "model_0000002.pth")] and Path(asked[0]).is_file()


def test_the_end_of_the_time_is_said(caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer()
    hook = ScheduleHook(lambda it, progress: 1.0, trainer.optimizer, 10, FakeClock(2.5))
    hook.load_state_dict({"elapsed_s": 10.0})
    trainer.register_hooks([hook])
    trainer.train(5, 1000)
    assert "used its train.max_seconds=10, at iteration 5; raise it to train on" in caplog.text
