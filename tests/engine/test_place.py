"""Where a process stands: the variables of a launcher, and the numbers of a command line."""

from __future__ import annotations

import socket

import pytest

from streampetr_vit.engine.place import Place, check_machines, place_of_launcher
from streampetr_vit.errors import InputError

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


def test_without_a_launcher_there_is_no_place() -> None:
    assert place_of_launcher({"LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1"}) is None


def test_the_place_that_torchrun_gives() -> None:
    variables = {**TORCHRUN, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1"}
    assert place_of_launcher(variables) == Place(5, 8, machine="1", local_rank=1)
    # Others do not name the machine, or say which of its processes this is.
    assert place_of_launcher(TORCHRUN) == Place(5, 8, machine=socket.gethostname())


@pytest.mark.parametrize("missing", sorted(TORCHRUN))
def test_a_variable_that_is_missing_is_named_with_the_ways_out(missing: str) -> None:
    for variables in (
        {name: value for name, value in TORCHRUN.items() if name != missing},
        {**TORCHRUN, missing: ""},
    ):
        with pytest.raises(InputError, match=f"not {missing}: .*torchrun.*type: unset RANK"):
            place_of_launcher(variables)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK"])
@pytest.mark.parametrize("value", ["one", "-1", "1.5"])
def test_what_is_no_number_is_named(name: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{name}='{value}'"):
        place_of_launcher({**TORCHRUN, name: value})


@pytest.mark.parametrize(("rank", "size"), [("8", "8"), ("0", "0")])
def test_a_rank_outside_the_world(rank: str, size: str) -> None:
    with pytest.raises(InputError, match=f"RANK={rank} with WORLD_SIZE={size}"):
        place_of_launcher({**TORCHRUN, "RANK": rank, "WORLD_SIZE": size})


@pytest.mark.parametrize(
    ("machines", "rank", "url", "problem"),
    [
        (0, 0, None, "--num-machines 0: give 1 or more"),
        (-2, 0, None, "--num-machines -2"),
        (1, 1, None, "--machine-rank 1 with --num-machines 1"),
        (2, 2, "tcp://10.0.0.1:29500", "--machine-rank 2 with --num-machines 2"),
        (2, -1, "tcp://10.0.0.1:29500", "--machine-rank -1"),
        (2, 0, None, "--num-machines 2 needs --dist-url.*tcp://10.0.0.1:29500"),
    ],
)
def test_machines_that_make_no_job(machines: int, rank: int, url: str | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check_machines(machines, rank, url)
    check_machines(2, 1, "tcp://10.0.0.1:29500")
