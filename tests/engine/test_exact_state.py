"""A resumed run equals one that was never stopped, bit by bit; on the toy task."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lazyconfig_train_net
import pytest
import torch
from detectron2.engine import default_argument_parser
from torch import Tensor
from toy_task import ToyDetector, equal

from streampetr_vit.checkpoint import loading
from streampetr_vit.checkpoint.manifest import read_manifest

CONFIG = str(Path(__file__).with_name("toy_config.py"))


@pytest.fixture(autouse=True)
def losses_that_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loss depends on a draw, beside the memory."""
    losses = ToyDetector.losses

    def drawing(model: ToyDetector, samples: list, memory: Any) -> Any:
        found, memory = losses(model, samples, memory)
        return {name: value * (1 + torch.rand(())) for name, value in found.items()}, memory

    monkeypatch.setattr(ToyDetector, "losses", drawing)


def run(output: Path, *arguments: str) -> None:
    options = [word for word in arguments if word.startswith("--")]
    words = ["--config-file", CONFIG, *options, "model.remembers=True", "train.max_iter=12"]
    words += ["train.checkpointer.period=5", f"train.output_dir={output}"]
    words += [word for word in arguments if word not in options]
    lazyconfig_train_net.main(default_argument_parser().parse_args(words))


def final(output: Path) -> dict[str, Any]:
    return torch.load(output / "model_final.pth", weights_only=True)


def stopped(output: Path, *arguments: str) -> None:
    """A run of which nothing is left but its first checkpoint, of five steps."""
    run(output, *arguments)
    for name in ("model_final.pth", "model_0000009.pth"):
        (output / name).unlink()
    (output / "last_checkpoint").write_text("model_0000004.pth")


@pytest.mark.parametrize(
    "words", [(), ("train.accumulate=3",), ("train.checkpointer.background=False",)], ids=str
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, words: Sequence[str]) -> None:
    run(tmp_path / "whole", *words)
    stopped(tmp_path / "cut", *words)
    run(tmp_path / "cut", "--resume", *words)
    whole = final(tmp_path / "whole")
    assert set(whole["memories"]) == {"memory"} and whole["memories"]["memory"].shape == (4,)
    assert equal(whole, final(tmp_path / "cut"))


@pytest.mark.parametrize("lost", ["memories", "seed"])
def test_without_its_memories_or_draws_it_would_not(tmp_path: Path, lost: str) -> None:
    run(tmp_path / "whole")
    stopped(tmp_path / "cut")
    path = tmp_path / "cut" / "model_0000004.pth"
    if lost == "memories":
        content = torch.load(path, weights_only=True)
        torch.save({**content, "memories": None}, path)
        (tmp_path / "cut" / "checkpoints.sha256").unlink()
    run(tmp_path / "cut", "--resume", *(["train.seed=1"] if lost == "seed" else []))
    assert not equal(final(tmp_path / "whole"), final(tmp_path / "cut"))


def test_an_evaluation_on_the_way_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path / "without")
    run(tmp_path / "with", "train.eval_period=3")
    assert equal(final(tmp_path / "without"), final(tmp_path / "with"))


def flip(path: Path, place: float) -> None:
    """Alters one byte of a file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)


def cut_off(path: Path, place: float) -> None:
    path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)])


@pytest.mark.parametrize("damage", [flip, cut_off])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.71, 0.999])
def test_a_damaged_checkpoint_is_seen_and_the_one_before_is_taken(
    tmp_path: Path, damage: Any, place: float
) -> None:
    run(tmp_path)
    whole = final(tmp_path)
    assert list(read_manifest(tmp_path)) == [
        "model_0000004.pth",
        "model_0000009.pth",
        "model_final.pth",
    ]
    for name in ("model_final.pth", "model_0000009.pth"):
        damage(tmp_path / name, place)
    run(tmp_path, "--resume")
    log = (tmp_path / "log.txt").read_text()
    line = next(line for line in log.splitlines() if "the one before is taken" in line)
    assert line.count("is damaged: its SHA-256 is not the one that checkpoints.sha256 lists") == 2
    assert line.endswith("model_0000004.pth") and "training from iteration 5 to 12" in log
    assert equal(whole, final(tmp_path))


def test_a_run_that_was_given_up_is_not_gone_on_with(tmp_path: Path) -> None:
    """The user went back to an older checkpoint, and the next one of the new run is damaged."""
    all_of_them = "train.checkpointer.max_to_keep=null"
    run(tmp_path, all_of_them, "train.max_iter=22")
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    run(tmp_path, "--resume", all_of_them, "train.max_iter=13")
    kept = ["model_0000004.pth", "model_0000009.pth", "model_0000014.pth", "model_0000019.pth"]
    assert sorted(path.name for path in tmp_path.glob("model_0*")) == kept  # none was written
    cut_off(tmp_path / "model_final.pth", 0.5)
    run(tmp_path, "--resume", "train.max_iter=17")
    log = (tmp_path / "log.txt").read_text()
    line = next(line for line in log.splitlines() if "the one before is taken" in line)
    assert line.endswith("model_0000009.pth") and "training from iteration 10 to 17" in log
    # The first to be removed are those of the run that was given up.
    assert sorted(path.name for path in tmp_path.glob("model_0*")) == kept[1:3]


def test_without_a_sound_checkpoint_nothing_is_trained(tmp_path: Path) -> None:
    run(tmp_path)
    for path in tmp_path.glob("model_*.pth"):
        flip(path, 0.5)
    message = "cannot resume: .*no checkpoint before it.*remove its line from checkpoints.sha256"
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, "--resume")


def test_sha256sum_reads_the_manifest(tmp_path: Path) -> None:
    run(tmp_path)
    command = ["sha256sum", "--check", "--strict", "checkpoints.sha256"]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    flip(tmp_path / "model_final.pth", 0.5)
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 1


@pytest.mark.parametrize("moment", ["forget", "note", "tag"])
def test_a_kill_around_a_write_leaves_a_folder_to_resume_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The final checkpoint is written over an earlier one, and that is cut short."""
    run(tmp_path, "schedule.warmup_iters=5")
    whole = final(tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")

    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    owner: Any = loading.SafeCheckpointer if moment == "tag" else loading.manifest
    name = {"tag": "tag_last_checkpoint"}.get(moment, moment)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, kill)
        run(tmp_path, "--resume", "schedule.warmup_iters=5")
    run(tmp_path, "--resume", "schedule.warmup_iters=5")
    assert equal(whole, final(tmp_path))


def test_a_kill_in_the_first_save_leaves_a_folder_to_resume_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loading.SafeCheckpointer, "tag_last_checkpoint", kill)
        run(tmp_path / "cut")
    assert not (tmp_path / "cut" / "last_checkpoint").exists()
    run(tmp_path / "cut", "--resume")
    assert "model_0000004.pth is the newest one" in (tmp_path / "cut" / "log.txt").read_text()
    run(tmp_path / "whole")
    assert equal(final(tmp_path / "whole"), final(tmp_path / "cut"))


def test_learning_rate_and_epochs_go_on_with_another_batch(tmp_path: Path) -> None:
    """16 steps of 4 lanes are an epoch; with 2 lanes, an epoch has 32."""

    def rates(folder: Path) -> dict[int, float]:
        lines = (folder / "metrics.json").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return {row["iteration"]: row["lr"] for row in rows if "lr" in row}

    words = ["--config-file", CONFIG, "train.log_period=1", "schedule.warmup_iters=0"]
    words += ["train.auto_scale=False", f"train.output_dir={tmp_path}", "train.max_iter=null"]

    def tool(*more: str) -> None:
        options = [word for word in more if word.startswith("--")]
        overrides = [word for word in more if not word.startswith("--")]
        arguments = [*options, *words, *overrides]
        lazyconfig_train_net.main(default_argument_parser().parse_args(arguments))

    tool("train.checkpointer.period=11")  # 2 epochs, 32 steps
    whole = rates(tmp_path)
    os.remove(tmp_path / "metrics.json")
    (tmp_path / "last_checkpoint").write_text("model_0000021.pth")
    tool("--resume", "dataloader.train.lanes_per_rank=2", "train.restart_streams=True")
    halves = rates(tmp_path)
    # 22 steps are done; step 22 + 2 i is as far along as step 22 + i was.
    assert sorted(halves) == list(range(22, 42))
    for step in range(10):
        assert halves[22 + 2 * step] == pytest.approx(whole[22 + step], rel=1e-12)
    position = final(tmp_path)["trainer"]["hooks"]["StreamStateHook"]["delivered"]
    assert position == 64  # two epochs of 32 batches
    # A further resume goes on with the same clock.
    (tmp_path / "last_checkpoint").write_text("model_0000031.pth")
    os.remove(tmp_path / "metrics.json")
    tool("--resume", "dataloader.train.lanes_per_rank=2", "train.checkpointer.period=1000")
    assert rates(tmp_path) == {step: rate for step, rate in halves.items() if step > 31}


def weights(output: Path) -> Tensor:
    return torch.cat([value.flatten() for value in final(output)["model"].values()])


def test_accumulation_equals_larger_batches(tmp_path: Path, monkeypatch) -> None:
    """Without memory and draws, two batches of two lanes are one of four."""
    monkeypatch.undo()
    words = ["--config-file", CONFIG, "train.max_iter=6", "train.auto_scale=False"]
    runs = {"large": [], "small": ["dataloader.train.lanes_per_rank=2", "train.accumulate=2"]}
    for name, more in runs.items():
        output = f"train.output_dir={tmp_path / name}"
        lazyconfig_train_net.main(default_argument_parser().parse_args([*words, *more, output]))
    large, small = (weights(tmp_path / name) for name in runs)
    assert torch.allclose(large, small, rtol=1e-5, atol=1e-7)
    log = (tmp_path / "small" / "log.txt").read_text()
    assert "batch          4 frames = 2 lanes x 1 processes x 2 accumulated" in log
    assert final(tmp_path / "small")["trainer"]["hooks"]["StreamStateHook"]["delivered"] == 12
