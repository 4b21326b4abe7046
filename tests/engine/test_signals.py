"""SIGTERM and SIGINT end a training with a checkpoint, in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from started_tool import end_all, start_python, wait_for

from streampetr_vit.engine import signals
from streampetr_vit.engine.signals import Interrupted, SignalWatch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOOL = str(ROOT / "tools" / "lazyconfig_train_net.py")
SLOW = ("train.max_iter=2000", "dataloader.train.seconds=0.01", "train.log_period=1")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the tool on the toy task; its output goes to files."""
    started = []

    def start_tool(*words: str) -> subprocess.Popen[str]:
        words = tuple(sorted(words, key=lambda word: not word.startswith("--")))  # options first
        arguments = [TOOL, "--config-file", str(HERE / "toy_config.py"), *words]
        arguments.append(f"train.output_dir={tmp_path / 'run'}")
        process = start_python(arguments, tmp_path / "printed")
        started.append(process)
        return process

    yield start_tool
    end_all(started)


def saved_iteration(run: Path) -> int:
    name = (run / "last_checkpoint").read_text()
    iteration = torch.load(run / name, weights_only=True)["trainer"]["iteration"]
    assert name == f"model_{iteration:07d}.pth"
    return iteration


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_a_signal_ends_training_with_a_checkpoint(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, number: int, status: int
) -> None:
    run, printed = tmp_path / "run", tmp_path / "printed"
    process = start(*SLOW, "--num-gpus=0")
    wait_for(run / "metrics.json", '"iteration": 3,')
    process.send_signal(number)
    assert process.wait(60) == status
    text = printed.read_text()
    assert "Traceback" not in text and "training failed" not in text
    assert f"{signals.name_of(number)}: training ends after this step" in text
    assert f"--config-file {run}/config.yaml --resume" in text
    last = saved_iteration(run)
    assert not (run / "model_final.pth").exists()
    assert not (run / "inference").exists() or not any((run / "inference").iterdir())
    # The command that it names goes on where it stopped.
    words = ("--resume", "--num-gpus=0", f"train.max_iter={last + 3}")
    assert start(*words).wait(60) == 0
    assert f"training from iteration {last + 1} to {last + 3}" in (run / "log.txt").read_text()


def two_ranks(start: Callable[..., subprocess.Popen[str]], run: Path) -> subprocess.Popen[str]:
    """A training in two processes that has taken some steps."""
    rendezvous = f"--dist-url=file://{run.parent}/rendezvous"
    process = start("--num-gpus=2", rendezvous, *SLOW, "dataloader.train.lanes_per_rank=2")
    wait_for(run / "metrics.json", '"iteration": 3,')
    return process


def test_a_signal_to_the_launcher_alone_stops_all_ranks_at_one_step(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = two_ranks(start, run)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    text = (tmp_path / "printed").read_text()
    assert "Traceback" not in text
    logs = [(run / name).read_text() for name in ("log.txt", "log.txt.rank1")]
    last = saved_iteration(run)
    for log in logs:
        assert f"SIGTERM: training stopped after iteration {last}" in log
    assert "--num-gpus 2 --resume" in logs[0]


def test_a_signal_to_one_rank_stops_all(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Rank 1 alone is told to end, as by a scheduler that takes its machine back."""
    run = tmp_path / "run"
    process = two_ranks(start, run)
    of_ranks = [int(pid) for pid in _children(process.pid) if b"spawn_main" in _command(int(pid))]
    os.kill(max(of_ranks), signal.SIGTERM)  # the younger one is rank 1
    assert process.wait(60) == 143
    assert "Traceback" not in (tmp_path / "printed").read_text()
    last = saved_iteration(run)
    for name in ("log.txt", "log.txt.rank1"):
        assert f"training stopped after iteration {last}" in (run / name).read_text()
    received = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    assert max(row["iteration"] for row in received) == last


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_second_signal_ends_at_once(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start("--num-gpus=0", "train.max_iter=2000", "dataloader.train.seconds=5")
    wait_for(tmp_path / "run" / "log.txt", "training from iteration 0")
    process.send_signal(signal.SIGTERM)
    time.sleep(signals._SAME_SIGNAL_S + 0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(4) == 143  # the step takes 20 s
    text = (tmp_path / "printed").read_text()
    assert "SIGTERM: ended at once" in text and "Traceback" not in text
    assert not list((tmp_path / "run").glob("*.pth*"))


def test_during_an_evaluation_the_steps_so_far_are_saved(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    slow = ("train.max_iter=2000", "train.eval_period=3", "dataloader.test.seconds=1")
    process = start("--num-gpus=0", *slow)
    wait_for(run / "log.txt", "Start inference on")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    text = (tmp_path / "printed").read_text()
    assert "SIGINT: ended at once" in text and "Traceback" not in text
    assert saved_iteration(run) == 2
    last = text.splitlines()[-1]
    assert "interrupted; the training so far is saved. To go on: python tools/lazyconfig" in last


def test_handlers_are_restored_and_only_the_main_thread_has_them() -> None:
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with SignalWatch() as watch:
        assert all(signal.getsignal(number) == watch._handle for number in signals.SIGNALS)
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before

    inside = []

    def elsewhere() -> None:
        with SignalWatch():
            inside.extend(signal.getsignal(number) for number in signals.SIGNALS)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert inside == before


def test_what_is_ignored_stays_ignored() -> None:
    """A shell's background job ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with SignalWatch():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_came_during_a_step_ends_what_follows_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with SignalWatch() as watch:
        watch.deferring = True
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # as a launcher passes it on: no second one
        assert watch.received == signal.SIGTERM
        with pytest.raises(Interrupted) as stop, watch.at_once():
            raise AssertionError("the block must not run")
        assert stop.value.code == 143 and watch.deferring
    assert capfd.readouterr().err.count("training ends after this step") == 1
