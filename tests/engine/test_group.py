"""Meeting the other processes: what is asked of torch, and what goes wrong in one line."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm

from streampetr_vit.engine import group
from streampetr_vit.engine.place import Place
from streampetr_vit.errors import InputError


@pytest.fixture
def short_start(monkeypatch) -> None:
    monkeypatch.setattr(group, "START_TIMEOUT", timedelta(seconds=1))


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of this machine on which another program listens, and does not answer."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def url_of_no_one() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{one.getsockname()[1]}"


def test_a_port_in_use_names_the_setting_and_the_way_out(taken_port: int, monkeypatch) -> None:
    url = f"tcp://127.0.0.1:{taken_port}"
    with pytest.raises(InputError, match=f"--dist-url {url}: another program.*leave out"):
        group.join(Place(0, 2, "a", url=url), use_gpu=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(taken_port))
    with pytest.raises(InputError, match=f"MASTER_PORT={taken_port}: another program"):
        group.join(Place(0, 2, "a"), use_gpu=False)


@pytest.mark.parametrize("rank", [0, 1])
def test_others_that_do_not_come(rank: int, short_start: None) -> None:
    url = url_of_no_one()
    with pytest.raises(InputError, match=f"rank {rank} of 2 waited 1 s at --dist-url {url}.*fire"):
        group.join(Place(rank, 2, "a", url=url), use_gpu=False)


@pytest.mark.parametrize(
    "url", ["tcp://127.0.0.1", "tcp://127.0.0.1:http", "10.0.0.1:29500", "udp://a:1", "tcp://:2"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InputError, match=f"--dist-url {url}: .*for example --dist-url tcp://"):
        group.join(Place(0, 2, "a", url=url), use_gpu=False)


def test_a_program_that_does_not_answer_ends_the_process(
    taken_port: int, monkeypatch, capfd
) -> None:
    # torch waits for ever in such a case.
    monkeypatch.setattr(group, "_HANGS_AFTER", timedelta(seconds=0.1))
    ended = threading.Event()

    def end(status: int) -> None:
        assert status == 1
        ended.set()

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(group, "_meet", lambda place: 1 / (not ended.wait(20)))
    url = f"tcp://127.0.0.1:{taken_port}"
    with pytest.raises(ZeroDivisionError):  # the process would be gone by now
        group.join(Place(1, 2, "a", url=url), use_gpu=False)
    line = f"rank 1 of 2 waits in vain for the others at --dist-url {url}"
    assert line in capfd.readouterr().err


class Recorder:
    """Stands in for torch's GPUs and process groups."""

    def __init__(self, monkeypatch, others: dict[str, list[str]], gpus: int = 4) -> None:
        self.device: int | None = None
        self.groups: list[tuple[list[int], timedelta]] = []
        self.backend = ""
        self.timeouts: list[timedelta] = []
        self.others = others
        replaced = {
            group: {
                "_meet": lambda place: None,
                "_of_this_start": lambda *_: SimpleNamespace(set_timeout=lambda limit: None),
                "Watch": lambda *_: None,
                "_exchange": self.exchange,
                "_gpu_name": lambda: f"gpu {self.device}",
                "_set_pg_timeout": lambda limit, group: self.timeouts.append(limit),
            },
            torch.cuda: {
                "set_device": lambda index: setattr(self, "device", index),
                "device_count": lambda: gpus,
            },
            dist: {"init_process_group": self.init, "new_group": self.new_group},
            comm: {"synchronize": lambda: None, "_LOCAL_PROCESS_GROUP": None},
        }
        for module, values in replaced.items():
            for name, value in values.items():
                monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(comm, "_get_global_gloo_group", lambda: None)

    def exchange(self, store: object, place: Place, key: str, value: str) -> list[str]:
        values = list(self.others.get(key, [value] * place.world_size))
        values[place.rank] = value
        return values

    def init(self, backend: str, **options) -> None:
        assert self.device is not None or backend == "gloo"  # NCCL takes the current device
        self.backend = backend
        self.timeouts.append(options["timeout"])

    def new_group(self, ranks: list[int], timeout: timedelta) -> str:
        self.groups.append((ranks, timeout))
        return f"group of {ranks}"


UNEQUAL = ["a", "a", "a", "b", "b"]  # a machine with three GPUs, another with two


@pytest.mark.parametrize(
    ("rank", "local_rank", "device"), [(4, 1, 1), (4, None, 1), (3, None, 0), (2, 2, 2), (2, 3, 3)]
)
def test_each_process_takes_the_gpu_of_its_place_on_its_machine(
    rank: int, local_rank: int | None, device: int, monkeypatch
) -> None:
    seen = Recorder(monkeypatch, {"machine": UNEQUAL, "gpu": ["w", "x", "y", "w", "x"]})
    group.join(Place(rank, 5, UNEQUAL[rank], local_rank), use_gpu=True)
    assert (seen.device, seen.backend) == (device, "nccl")
    # Every rank makes every group, and finds its own.
    assert [ranks for ranks, _ in seen.groups] == [[0, 1, 2], [3, 4]]
    here = [0, 1, 2] if rank < 3 else [3, 4]
    assert f"group of {here}" == comm._LOCAL_PROCESS_GROUP
    # NCCL's ten minutes and gloo's thirty are too short for rank 0's evaluation.
    assert {*seen.timeouts, *(limit for _, limit in seen.groups)} == {group.GROUP_TIMEOUT}
    assert len(seen.timeouts) == 2 and timedelta(hours=1) < group.GROUP_TIMEOUT


def test_a_launcher_may_show_each_process_its_own_gpu_alone(monkeypatch) -> None:
    seen = Recorder(monkeypatch, {"gpu": ["w", "x"]}, gpus=1)
    group.join(Place(1, 2, "a", local_rank=1), use_gpu=True)
    assert seen.device == 0


def test_more_processes_than_gpus(monkeypatch) -> None:
    Recorder(monkeypatch, {}, gpus=2)
    with pytest.raises(InputError, match="process 2 of this machine has no GPU, torch sees 2"):
        group.join(Place(2, 4, "a", local_rank=2), use_gpu=True)


def test_two_processes_on_one_gpu(monkeypatch) -> None:
    Recorder(monkeypatch, {"gpu": ["gpu 0", "gpu 0"], "machine": ["a", "a"]}, gpus=1)
    with pytest.raises(InputError, match="ranks 0, 1 are on one GPU .gpu 0. of machine a"):
        group.join(Place(1, 2, "a", local_rank=1), use_gpu=True)


def test_a_machine_whose_gpu_is_lost_does_not_wait_for_the_others(monkeypatch) -> None:
    Recorder(monkeypatch, {"kind": ["GPU", "CPU"]})
    with pytest.raises(InputError, match="rank 1 on b runs on the CPU, rank 0 on the GPU"):
        group.join(Place(1, 2, "b"), use_gpu=False)
