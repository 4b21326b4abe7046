"""Starting processes, and the one line and the status when one of them fails."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lazyconfig_train_net
import pytest
import torch
import torch.multiprocessing as mp

from streampetr_vit.checkpoint.background import BackgroundWriter
from streampetr_vit.engine import group, processes
from streampetr_vit.engine.failures import LostProcessError, ProcessError, user_error
from streampetr_vit.engine.place import Place
from streampetr_vit.engine.processes import launch
from streampetr_vit.errors import InputError, one_line_errors

URL = "tcp://10.0.0.1:29500"
HERE = Place(rank=2, world_size=4, machine="1", local_rank=0, url=URL)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def started(monkeypatch) -> list[tuple[int, Place]]:
    """What would have been started: number of processes, and the place of the first."""
    calls: list[tuple[int, Place]] = []

    def start(run: object, args: tuple, nprocs: int, join: bool) -> SimpleNamespace:
        calls.append((nprocs, args[0]))
        return SimpleNamespace(processes=[])

    monkeypatch.setattr(mp, "start_processes", start)
    return calls


def test_one_process_runs_here() -> None:
    seen: list[int] = []
    launch(seen.append, (3,), num_processes=0, use_gpu=False)
    assert seen == [3]


@pytest.mark.parametrize(
    ("asked", "machines", "machine_rank", "expected"),
    [
        (0, 2, 0, (0, 2, 1)),  # first rank on this machine, processes in all, on each machine
        (0, 2, 1, (1, 2, 1)),
        (1, 3, 2, (2, 3, 1)),
        (4, 2, 1, (4, 8, 4)),
        (2, 1, 0, (0, 2, 2)),
    ],
)
def test_processes_of_several_machines(
    asked: int, machines: int, machine_rank: int, expected: tuple[int, int, int], started: list
) -> None:
    numbers = dict(num_processes=asked, num_machines=machines, machine_rank=machine_rank)
    launch(print, (), **numbers, dist_url=URL, use_gpu=False)
    rank, world_size, on_machine = expected
    assert started == [(on_machine, Place(rank, world_size, str(machine_rank), 0, URL))]


@pytest.mark.parametrize("url", [None, "auto"])
def test_two_runs_on_one_machine_meet_at_ports_of_their_own(url: str | None, started: list) -> None:
    held = []
    for _ in range(2):
        launch(print, (), num_processes=2, dist_url=url, use_gpu=False)
        held.append(started[-1][1].port)
    assert all(isinstance(port, int) and port > 0 for port in held)


def test_more_processes_than_gpus_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="--num-gpus 2, but this machine has 1"):
        launch(print, (), num_processes=2, use_gpu=True)
    with pytest.raises(InputError, match="--num-gpus -1"):
        launch(print, (), num_processes=-1, use_gpu=False)


def test_processes_on_the_cpu_are_said_to_be(started: list, monkeypatch, capsys) -> None:
    for has_gpu, why in ((False, "torch sees no GPU here"), (True, "train.device is cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        launch(print, (), num_processes=4, use_gpu=False)
        line = "--num-gpus 4 starts 4 processes on the CPU, which share its cores: "
        assert capsys.readouterr().out == f"{line}{why}\n"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    launch(print, (), num_processes=4, use_gpu=True)
    launch(print, ("only me",), num_processes=1, use_gpu=False)
    assert capsys.readouterr().out == "only me\n"


def test_half_set_variables_of_a_launcher(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(InputError, match="not MASTER_ADDR"):
        launch(print, (), use_gpu=False)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--num-machines=2"], "--num-machines 2 needs --dist-url"),
        (["--machine-rank=1"], "--machine-rank 1 with --num-machines 1"),
        (["--num-gpus=-1"], "--num-gpus -1"),
        (
            ["--num-gpus=0", "train.device=cuda:1"],
            "--num-gpus 0 asks for the CPU, and train.device=cuda:1 for a GPU: leave one",
        ),
    ],
)
def test_the_tool_says_in_a_line_what_makes_no_job(
    words: list[str], line: str, monkeypatch
) -> None:
    file = str(Path(__file__).with_name("toy_config.py"))
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-file", file, *words])
    with pytest.raises(SystemExit, match=f"^train.py: error: {line}"):
        lazyconfig_train_net.invoke_main()


def test_the_tool_leaves_the_port_to_the_launch(monkeypatch) -> None:
    given = {}
    monkeypatch.setattr(lazyconfig_train_net, "launch", lambda *_, **options: given.update(options))
    file = str(Path(__file__).with_name("toy_config.py"))
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-file", file, "--num-gpus=2"])
    lazyconfig_train_net.invoke_main()
    assert given["num_processes"] == 2 and given["dist_url"] is None


@pytest.mark.parametrize("words", [[], ["train.device=cpu"], ["train.device=auto"]])
def test_no_gpus_mean_the_cpu_whatever_the_recipe_says(words: list[str], monkeypatch) -> None:
    load = lazyconfig_train_net.load_config
    asked = words or ["train.device=cuda"]  # by the recipe, where nobody has typed it
    monkeypatch.setattr(lazyconfig_train_net, "load_config", lambda file, *_: load(file, asked))
    file = str(Path(__file__).with_name("toy_config.py"))
    args = argparse.Namespace(config_file=file, opts=words, num_gpus=0)
    assert lazyconfig_train_net.configuration(args).train.device == "cpu"


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has ...")


def test_out_of_memory_in_one_process_is_one_line() -> None:
    with pytest.raises(ProcessError, match="out of GPU memory .*lanes_per_rank"):
        launch(out_of_memory, (), use_gpu=False)


@one_line_errors()
def wrong_setting() -> None:
    raise InputError("train.x=3 is wrong")


def lost() -> None:
    raise RuntimeError("[/a/gloo/pair.cc:553] Connection closed by peer [127.0.0.1]:26302. Typical")


def fault() -> None:
    raise KeyError("a fault of the program")


class NoWatch(contextlib.nullcontext):
    def start(self, end: object) -> None: ...


@pytest.mark.parametrize(
    ("main", "status", "message"),
    [
        (wrong_setting, 1, "tool.py: error: train.x=3 is wrong"),
        (out_of_memory, 1, "tool.py: error: rank 3: out of GPU memory (CUDA out of memory"),
        (lost, processes._LOST, "tool.py: error: another process of this run ended"),
        (fault, 1, "rank 3: Traceback (most recent call last)"),
        (sys.exit, None, ""),
    ],
)
def test_a_process_leaves_why_it_fails(
    main, status: int | None, message: str, tmp_path: Path, monkeypatch
) -> None:
    left: list[bool] = []
    monkeypatch.setattr(sys, "argv", ["/a/tool.py"])
    monkeypatch.setattr(group, "join", lambda place, use_gpu: NoWatch())
    monkeypatch.setattr(group, "leave", lambda: left.append(True))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: not left)
    with pytest.raises(SystemExit) as stop:
        processes._child(1, HERE, False, main, (), str(tmp_path))
    assert stop.value.code == status and left == [True]
    written = tmp_path / "1"
    assert written.read_text().startswith(message)
    assert ("\n" in written.read_text()) == (main is fault)


def test_a_process_that_must_end_brings_a_checkpoint_to_its_end_first(monkeypatch) -> None:
    class FailsAtOnce(NoWatch):
        def start(self, end: Callable[[str], None]) -> None:
            end("rank 1 failed")

    said: list[str] = []
    monkeypatch.setattr(group, "join", lambda place, use_gpu: FailsAtOnce())
    monkeypatch.setattr(os, "_exit", sys.exit)
    writer = BackgroundWriter()
    writer.start(lambda: (time.sleep(0.5), said.append("written")))
    with pytest.raises(SystemExit) as stop:
        processes._run(HERE, False, lambda: None, (), said.append)
    assert said == [processes._line("rank 1 failed"), "written"]
    assert stop.value.code == processes._LOST


# How a process may end. Functions of Python alone: a test's own would have it import torch.
def _is_lost_later() -> None:
    time.sleep(1)  # the other process, which starts beside it, is gone by then
    sys.exit(processes._LOST)


ENDS = {
    "ends": (sys.exit, (0,)),
    "fails": (sys.exit, (1,)),
    "lost": (sys.exit, (processes._LOST,)),
    "is lost later": (_is_lost_later, ()),
    "asked": (sys.exit, (128 + signal.SIGTERM,)),
    "is killed": (signal.raise_signal, (signal.SIGKILL,)),
    "saves": (time.sleep, (1,)),
    "waits": (time.sleep, (60,)),
}


@pytest.fixture
def waited(tmp_path: Path, monkeypatch):
    """Starts processes and waits for them as the launching process does."""
    monkeypatch.setattr(processes, "_GRACE_S", 0.3)
    context = multiprocessing.get_context("spawn")

    def wait(*ends: str) -> None:
        started = []
        for index, end in enumerate(ends):
            kind, has_word, message = end.partition(": ")
            if has_word:
                (tmp_path / str(index)).write_text(message and f"tool.py: error: {message}")
            target, arguments = ENDS[kind]
            started.append(context.Process(target=target, args=arguments))
            started[-1].start()
        try:
            processes._wait(started, tmp_path, lambda *words: wait.told.append(words))
        finally:
            assert not any(each.is_alive() for each in started)
            wait.status = [each.exitcode for each in started]

    wait.told = []
    return wait


@pytest.mark.parametrize(
    ("ends", "lines"),
    [
        (["fails: a", "waits"], ["a"]),
        (["waits", "fails: a"], ["a"]),
        (["fails: a", "fails: a"], ["a"]),  # all find the same fault
        (["lost: b", "fails: a"], ["a"]),  # the others only follow
        (["lost: b", "waits"], ["b"]),  # of a process on another machine
    ],
)
def test_a_process_that_fails_ends_the_job_with_one_line(
    ends: list[str], lines: list[str], waited, capfd
) -> None:
    with pytest.raises(SystemExit) as stop:
        waited(*ends)
    assert stop.value.code == 1
    assert capfd.readouterr().err.splitlines() == [f"tool.py: error: {line}" for line in lines]
    assert waited.told == []  # a process that has words of its own has told the others


def test_a_process_that_is_killed_is_said_to_be(waited) -> None:
    with pytest.raises(
        ProcessError, match="process 1 of this machine was ended by SIGKILL.*memory"
    ):
        waited("is lost later: b", "is killed")
    assert waited.told == [(1, "was ended by SIGKILL")]


def test_processes_that_end_well(waited) -> None:
    waited("ends", "ends")


def test_a_signal_is_passed_on(waited, monkeypatch) -> None:
    passing = processes.passing_on_signals

    @contextlib.contextmanager
    def signalled():
        with passing() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            yield signals

    monkeypatch.setattr(processes, "passing_on_signals", signalled)
    monkeypatch.setattr(processes, "_GRACE_S", 30.0)  # they end before, by the signal
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        waited("waits", "waits")
    assert stop.value.code == 143 and waited.status == [-signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_process_that_ends_as_asked_leaves_the_others_their_time(waited) -> None:
    with pytest.raises(SystemExit) as stop:
        waited("asked: ", "saves")
    assert stop.value.code == 143 and waited.status == [143, 0]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", ProcessError, "num_workers"),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", ProcessError, "__main__"),
        ("[enforce] DefaultCPUAllocator: can't allocate memory: you tried", ProcessError, "memory"),
        ("Read error [127.0.0.1]:1: Connection reset by peer", LostProcessError, "log.txt.rankN"),
        ("[/gloo/tcp/buffer.cc:81] Timed out waiting 5ms for recv", LostProcessError, "no longer"),
    ],
)
def test_failures_in_words(text: str, kind: type, words: str, monkeypatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    error = user_error(RuntimeError(text))
    assert type(error) is kind and words in str(error) and "\n" not in str(error)
    assert user_error(RuntimeError("shapes do not match")) is None
    assert user_error(ValueError(text)) is None


def test_a_broken_pipe_without_other_processes_is_none_of_theirs() -> None:
    assert not torch.distributed.is_initialized()
    assert user_error(RuntimeError("broken pipe")) is None
