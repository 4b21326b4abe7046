"""Devices, and the few exchanges between ranks that training needs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streampetr_vit.errors import InputError


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


def wait_for_main() -> None:
    """Waits until rank 0 is here too, after what it alone does: scores, reports.

    Not detectron2's `comm.synchronize`, which waits on the GPU with NCCL: its watchdog counts that
    time, and the GPUs would spin. Gloo waits on the CPU, for up to `group.GROUP_TIMEOUT`.
    """
    if comm.get_world_size() > 1:
        dist.barrier(group=comm._get_global_gloo_group())


def resolve_device(name: str = "auto") -> torch.device:
    """The device that this process computes on. A GPU becomes torch's current device.

    Args:
        name: "auto" (this process's GPU if there is one, else the CPU), "cpu", "cuda" (this
            process's GPU) or "cuda:N".

    Raises:
        InputError: unknown name, a GPU that is not there, or one GPU for several processes.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(name)):
        raise InputError(
            f'train.device={name!r} is unknown: allowed are "auto", "cpu", "cuda" and "cuda:N"'
        )
    # A gloo group means that the launcher was asked for CPU processes.
    on_cpu = comm.get_world_size() > 1 and dist.get_backend() == "gloo"
    if name == "cpu" or (name == "auto" and (on_cpu or not torch.cuda.is_available())):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(
            f"train.device={name!r}, but torch {torch.__version__} sees no GPU: set "
            "train.device=cpu, or install a CUDA build of torch and check the driver"
        )
    if on_cpu:
        raise InputError(
            f"train.device={name!r}, but the processes were started for the CPU, and all would "
            "take one GPU: pass --num-gpus with the number of GPUs, or set train.device=cpu"
        )
    if ":" in name and comm.get_world_size() > 1:
        raise InputError(
            f"train.device={name!r} with {comm.get_world_size()} processes, which would all take "
            "that GPU: set train.device=cuda, and choose the GPUs with CUDA_VISIBLE_DEVICES"
        )
    # Without an index: the GPU that the launcher made current for this process.
    index = int(name.partition(":")[2] or torch.cuda.current_device())
    if index >= torch.cuda.device_count():
        raise InputError(
            f"train.device={name!r}, but torch sees {torch.cuda.device_count()} GPU(s), counted "
            "from 0: choose one of them"
        )
    # Pinned memory, memory counters and questions about "the" GPU take the current device.
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


class _Losses(nn.Module):
    """Calls a model's `losses` from its `forward`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any, memory: Any) -> tuple[dict[str, Tensor], Any]:
        return self.model.losses(batch, memory)


def training_module(model: nn.Module, **options: Any) -> nn.Module:
    """The module that the trainer calls with (batch, memory), for any number of processes.

    All ranks begin with rank 0's parameters and buffers.

    Args:
        model: with `losses(batch, memory) -> (losses, memory)`; on its device.
        options: of `DistributedDataParallel`, which wraps it if there are several processes. It
            does not move inputs: the model does that, as in a single process.
    """
    # DistributedDataParallel prepares its reductions where `forward` is called.
    module = _Losses(model)
    if comm.get_world_size() == 1:
        return module
    # Some buffers are drawn when a model is built, such as the points at which queries of a new
    # stream start. The wrapper shares buffers only if it is to do so in every step.
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)
    with warnings.catch_warnings():
        # torch 2.13 renames broadcast_buffers; 2.10 does not know the new name.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(module, **options)
