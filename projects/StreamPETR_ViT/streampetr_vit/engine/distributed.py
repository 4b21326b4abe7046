"""Processes, devices and the few reductions over ranks that training needs."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streampetr_vit.engine.signals import passed_on
from streampetr_vit.errors import InputError

logger = logging.getLogger(__name__)


def reduce_mean(value: Tensor) -> Tensor:
    """Mean of a tensor over all ranks, without gradient; the tensor itself with one process.

    Args:
        value: float, of any shape that is the same on every rank. It is not modified.
    """
    if comm.get_world_size() == 1:
        return value
    # A sum and a division: gloo has no mean.
    mean = value.detach().clone()
    dist.all_reduce(mean)
    return mean / comm.get_world_size()


def loss_reduction() -> Callable[[Tensor], Tensor]:
    """Returns `reduce_mean`, for configurations."""
    # A LazyConfig describes calls, and its YAML form cannot hold a function as a value.
    return reduce_mean


def broadcast_float(value: float) -> float:
    """Rank 0's value, on every rank."""
    if comm.get_world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"  # each backend sends its own kind
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, src=0)
    return shared.item()


def resolve_device(name: str = "auto") -> torch.device:
    """The device that this process computes on.

    Args:
        name: "auto" (this process's GPU if there is one, else the CPU), "cpu", "cuda" (this
            process's GPU) or "cuda:N".

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        # A gloo group means that the launcher was asked for CPU processes.
        on_cpu = dist.is_initialized() and dist.get_backend() == "gloo"
        name = "cuda" if available and not on_cpu else "cpu"
    if name.startswith("cuda") and not available:
        raise InputError(
            f"train.device={name!r}, but torch {torch.__version__} sees no GPU: set "
            "train.device=cpu, or install a CUDA build of torch and check the driver"
        )
    if name != "cuda":
        return torch.device(name)
    # A group of one process that others have made lacks detectron2's group of this machine.
    return torch.device("cuda", comm.get_local_rank() if comm.get_world_size() > 1 else 0)


class _Losses(nn.Module):
    """Calls a model's `losses` from its `forward`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any, memory: Any) -> tuple[dict[str, Tensor], Any]:
        return self.model.losses(batch, memory)


def training_module(model: nn.Module, **options: Any) -> nn.Module:
    """The module that the trainer calls with (batch, memory), for any number of processes.

    Args:
        model: with `losses(batch, memory) -> (losses, memory)`; on its device.
        options: of `DistributedDataParallel`, which wraps it if there are several processes. It
            does not move inputs: the model does that, as in a single process.
    """
    # DistributedDataParallel prepares its reductions where `forward` is called.
    module = _Losses(model)
    if comm.get_world_size() == 1:
        return module
    with warnings.catch_warnings():
        # torch 2.13 renames broadcast_buffers; 2.10 does not know the new name.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(module, **options)


def launch(
    main: Callable[..., None],
    args: tuple[Any, ...],
    *,
    num_processes: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "env://",
    use_gpu: bool | None = None,
) -> None:
    """Runs `main(*args)` in one or more processes, with a process group between them.

    Under `torchrun` this process is one of the group, and the numbers given here are not used.

    Args:
        main: importable by name, because the other processes are new interpreters.
        args: its arguments, picklable.
        num_processes: on each machine; 0 counts as 1. A single process is this one.
        num_machines, machine_rank: how many take part, and the index of this one.
        dist_url: where rank 0 listens, for example "tcp://10.0.0.1:29500".
        use_gpu: None uses the GPUs if there are any.

    Raises:
        InputError: more processes than GPUs.
        SystemExit: one of several processes ended by itself, and has said why.
    """
    # Not detectron2's `launch`: v0.6 requires a GPU, and knows nothing of torchrun.
    use_gpu = torch.cuda.is_available() if use_gpu is None else use_gpu
    # torchrun sets these.
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        _run(0, (rank, world_size, on_machine, "env://", use_gpu), main, args)
        return
    num_processes = max(num_processes, 1)
    world_size = num_processes * num_machines
    if world_size == 1:
        main(*args)
        return
    if use_gpu and num_processes > torch.cuda.device_count():
        raise InputError(
            f"--num-gpus {num_processes}, but this machine has {torch.cuda.device_count()}: pass "
            "that many or fewer, or --num-gpus 0 for the CPU"
        )
    group = (machine_rank * num_processes, world_size, num_processes, dist_url, use_gpu)
    try:
        with passed_on():
            mp.spawn(_run, nprocs=num_processes, args=(group, main, args))
    except mp.ProcessExitedException as error:
        if error.exit_code < 0:  # killed by a signal
            raise
        sys.exit(error.exit_code)  # the process has printed its error already


def _run(
    index: int, group: tuple[int, int, int, str, bool], main: Callable[..., None], args: tuple
) -> None:
    """Runs `main` between joining a group as its first rank + index and leaving it."""
    first_rank, *others = group
    _join(first_rank + index, *others)
    try:
        main(*args)
    except SystemExit:
        if dist.get_backend() == "gloo":  # leaving an NCCL group could wait for the others
            _leave()
        raise
    _leave()


def _leave() -> None:
    """Destroys the process groups."""
    # A gloo group that is alive when Python ends aborts the process now and then. detectron2 keeps
    # two groups, and a wrapped model in a reference cycle keeps another.
    comm._get_global_gloo_group.cache_clear()
    comm._LOCAL_PROCESS_GROUP = None
    gc.collect()
    dist.destroy_process_group()


def _join(rank: int, world_size: int, on_machine: int, dist_url: str, use_gpu: bool) -> None:
    """Joins the process group and makes detectron2's group of this machine's processes."""
    if use_gpu:
        # Before the group is made: NCCL takes the current device.
        torch.cuda.set_device(rank % on_machine)
    start = time.monotonic()
    dist.init_process_group(
        "nccl" if use_gpu else "gloo", init_method=dist_url, world_size=world_size, rank=rank
    )
    # As detectron2's create_local_process_group, which v0.6 lacks. Every rank takes part in making
    # every group, its own or not.
    for first in range(0, world_size, on_machine):
        group = dist.new_group(list(range(first, first + on_machine)))
        if first <= rank < first + on_machine:
            comm._LOCAL_PROCESS_GROUP = group
    comm.synchronize()
    logger.info("rank %d of %d joined in %.1f s", rank, world_size, time.monotonic() - start)
