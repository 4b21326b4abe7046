"""Where a process stands among all of a job: its rank, its machine, and where they all meet."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from streampetr_vit.errors import InputError

_UNSET = "or, to run on this machine alone, type: unset RANK WORLD_SIZE LOCAL_RANK"


@dataclass(frozen=True)
class Place:
    """One process among `world_size`.

    Attributes:
        rank, world_size: index among all processes, and how many there are.
        machine: the same text for all processes of one machine, another for each machine.
        local_rank: index among those of this machine; None if the launcher does not say.
        url: where they meet, as torch's `init_method`.
        port: of the store that the launching process of this machine holds; None if rank 0 holds
            it at `url`.
    """

    rank: int
    world_size: int
    machine: str
    local_rank: int | None = None
    url: str = "env://"
    port: int | None = None

    def name(self) -> str:
        """The rank and its machine, for messages on other machines."""
        host = socket.gethostname()
        machine = host if self.machine == host else f"machine {self.machine} ({host})"
        return f"rank {self.rank} on {machine}"

    def meeting_point(self) -> str:
        """The setting that says where the processes meet, as the user wrote it."""
        if self.url == "env://":
            names = ("MASTER_ADDR", "MASTER_PORT")
            return " ".join(f"{name}={os.environ.get(name, '')}" for name in names)
        return f"--dist-url {self.url}"


def place_of_launcher(environment: Mapping[str, str]) -> Place | None:
    """The place that torchrun or another launcher gave this process; None without a launcher.

    Args:
        environment: the variables of the process.

    Raises:
        InputError: only some of the variables are set, or they do not go together.
    """
    given = [name for name in ("RANK", "WORLD_SIZE") if name in environment]
    if not given:
        return None
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if not environment.get(name)]
    if missing:
        raise InputError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} set, as by torchrun, but "
            f"not {' and '.join(missing)}: start with torchrun, which sets all; or set them "
            "yourself (MASTER_ADDR, MASTER_PORT: the machine of rank 0 and a free port of it); "
            f"{_UNSET}"
        )
    rank, world_size = _number("RANK", environment), _number("WORLD_SIZE", environment)
    _number("MASTER_PORT", environment)
    if not 0 <= rank < world_size:
        raise InputError(
            f"RANK={rank} with WORLD_SIZE={world_size}: ranks count from 0 to WORLD_SIZE - 1. Give "
            f"each process its own, as torchrun does; {_UNSET}"
        )
    local = _number("LOCAL_RANK", environment) if environment.get("LOCAL_RANK") else None
    # torchrun's index of the machine is better than a name: containers may share one.
    machine = environment.get("GROUP_RANK") or socket.gethostname()
    return Place(rank, world_size, machine, local)


def _number(name: str, environment: Mapping[str, str]) -> int:
    value = environment[name]
    if not value.isdecimal():
        raise InputError(f"{name}={value!r} is no whole number of 0 or more: correct it; {_UNSET}")
    return int(value)


def check_machines(num_machines: int, machine_rank: int, dist_url: str | None) -> None:
    """Refuses numbers of machines that make no job.

    Raises:
        InputError: on what cannot be.
    """
    if num_machines < 1:
        raise InputError(f"--num-machines {num_machines}: give 1 or more")
    if not 0 <= machine_rank < num_machines:
        raise InputError(
            f"--machine-rank {machine_rank} with --num-machines {num_machines}: machines count "
            f"from 0 to {num_machines - 1}, and each has its own"
        )
    if num_machines > 1 and dist_url is None:
        raise InputError(
            f"--num-machines {num_machines} needs --dist-url: on every machine the same address of "
            "machine 0 and a free port of it, for example --dist-url tcp://10.0.0.1:29500"
        )


def processes_on_cpu(count: int) -> str:
    """What to say where --num-gpus counts processes of the CPU."""
    why = "train.device is cpu" if torch.cuda.is_available() else "torch sees no GPU here"
    return f"--num-gpus {count} starts {count} processes on the CPU, which share its cores: {why}"
