"""Processes, devices and the few reductions over ranks that training needs.

detectron2's `launch` (v0.6) requires a GPU; the launcher here also starts processes on CPUs and
joins the ones that `torchrun` has started.
"""

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

from streampetr_vit.errors import InputError

logger = logging.getLogger(__name__)


def reduce_mean(value: Tensor) -> Tensor:
    """Mean of a tensor over all ranks; the tensor itself when there is one process.

    Args:
        value: any shape, the same on every rank; float. Not modified, no gradient flows back.
    """
    if comm.get_world_size() == 1:
        return value
    mean = value.detach().clone()
    dist.all_reduce(mean)
    return mean / comm.get_world_size()


def loss_reduction() -> Callable[[Tensor], Tensor]:
    """`reduce_mean`, for configurations: they can name a call, but hold no function."""
    return reduce_mean


def broadcast_float(value: float) -> float:
    """Rank 0's value, on every rank."""
    if comm.get_world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, src=0)
    return shared.item()


def local_rank() -> int:
    """Index of this process on its machine; 0 when there is one process."""
    return comm.get_local_rank() if comm.get_world_size() > 1 else 0


def resolve_device(name: str = "auto") -> torch.device:
    """The device this process computes on.

    Args:
        name: "auto" (this process's GPU if there is one, else the CPU), "cpu", "cuda" or "cuda:N".

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
            f"train.device={name!r}, but torch {torch.__version__} sees no GPU; use "
            "train.device=cpu, or install a CUDA build of torch and check the driver"
        )
    return torch.device("cuda", local_rank()) if name == "cuda" else torch.device(name)


class _Losses(nn.Module):
    """Calls a model's `losses`: DistributedDataParallel acts where a module's forward is called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any, memory: Any) -> tuple[dict[str, Tensor], Any]:
        return self.model.losses(batch, memory)


def training_module(model: nn.Module, **options: Any) -> nn.Module:
    """What the trainer calls with (batch, memory): a model's `losses`, for any number of processes.

    Args:
        model: with `losses(batch, memory) -> (losses, memory)`; on its device.
        options: of `DistributedDataParallel`, see `wrap_distributed`.
    """
    return wrap_distributed(_Losses(model), **options)


def wrap_distributed(model: nn.Module, **options: Any) -> nn.Module:
    """The model, wrapped for data-parallel training when there is more than one process.

    Args:
        model: on its device already.
        options: of `DistributedDataParallel`. Inputs are not moved: the model does that itself,
            the same way as in a single process.
    """
    if comm.get_world_size() == 1:
        return model
    with warnings.catch_warnings():
        # torch 2.13 renames broadcast_buffers; 2.10 does not know the new name.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(model, **options)


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
    """Runs `main(*args)` in as many processes as asked for, with a process group between them.

    Under `torchrun` (RANK and WORLD_SIZE in the environment) this process is one of them and the
    numbers given here are not used.

    Args:
        main: importable by name, since other processes are started anew.
        args: its arguments, picklable.
        num_processes: on each machine; 0 counts as 1. A single process is this one.
        num_machines: that take part.
        machine_rank: of this machine.
        dist_url: where rank 0 listens, for example "tcp://10.0.0.1:29500".
        use_gpu: None uses the GPUs if there are any.

    Raises:
        InputError: more processes than GPUs.
        SystemExit: one of several processes ended by itself, and has said why.
    """
    use_gpu = torch.cuda.is_available() if use_gpu is None else use_gpu
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        env = {key: int(os.environ[key]) for key in ("RANK", "WORLD_SIZE")}
        on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", env["WORLD_SIZE"]))
        _join(env["RANK"], env["WORLD_SIZE"], on_machine, "env://", use_gpu)
        _run_and_leave(main, args)
        return
    num_processes = max(num_processes, 1)
    world_size = num_processes * num_machines
    if world_size == 1:
        main(*args)
        return
    if use_gpu and num_processes > torch.cuda.device_count():
        raise InputError(
            f"--num-gpus {num_processes}, but this machine has {torch.cuda.device_count()}; use as "
            "many or fewer, or --num-gpus 0 for the CPU"
        )
    first_rank = machine_rank * num_processes
    group = (first_rank, world_size, num_processes, dist_url, use_gpu)
    try:
        mp.spawn(_spawned, nprocs=num_processes, args=(group, main, args))
    except mp.ProcessExitedException as error:
        if error.exit_code < 0:  # killed by a signal
            raise
        sys.exit(error.exit_code)


def _spawned(
    index: int, group: tuple[int, int, int, str, bool], main: Callable[..., None], args: tuple
) -> None:
    first_rank, world_size, on_machine, dist_url, use_gpu = group
    _join(first_rank + index, world_size, on_machine, dist_url, use_gpu)
    _run_and_leave(main, args)


def _run_and_leave(main: Callable[..., None], args: tuple) -> None:
    try:
        main(*args)
    except SystemExit:
        if dist.get_backend() == "gloo":  # leaving an NCCL group could wait for the others
            _leave()
        raise
    _leave()


def _leave() -> None:
    """Destroys the groups, also where detectron2 or a wrapped model still hold them.

    A gloo group that is alive when Python ends aborts the process now and then.
    """
    comm._get_global_gloo_group.cache_clear()
    comm._LOCAL_PROCESS_GROUP = None
    gc.collect()
    dist.destroy_process_group()


def _join(rank: int, world_size: int, on_machine: int, dist_url: str, use_gpu: bool) -> None:
    """Joins the process group and makes detectron2's per-machine group."""
    if use_gpu:
        torch.cuda.set_device(rank % on_machine)
    start = time.monotonic()
    dist.init_process_group(
        "nccl" if use_gpu else "gloo", init_method=dist_url, world_size=world_size, rank=rank
    )
    _create_local_group(rank, world_size, on_machine)
    comm.synchronize()
    logger.info("rank %d of %d joined in %.1f s", rank, world_size, time.monotonic() - start)


def _create_local_group(rank: int, world_size: int, on_machine: int) -> None:
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(on_machine)
        return
    # detectron2 v0.6 has no function for this; its own launcher sets the same variable.
    for first in range(0, world_size, on_machine):
        group = dist.new_group(list(range(first, first + on_machine)))
        if first <= rank < first + on_machine:
            comm._LOCAL_PROCESS_GROUP = group
