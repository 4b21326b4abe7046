"""Writing a checkpoint beside the training: a copy in host memory, and a thread that writes it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

import torch
from torch import Tensor

from streampetr_vit.structures.tensors import map_tensors

T = TypeVar("T")

# Of this process, while they are in use.
_WRITERS: weakref.WeakSet[BackgroundWriter] = weakref.WeakSet()


class HostCopy:
    """A copy of values in host memory, which the next copy overwrites."""

    def __init__(self) -> None:
        # Kept from copy to copy: to get gigabytes of page-locked memory takes seconds.
        self._buffers: list[Tensor] = []

    def take(self, values: T) -> T:
        """The same values with every tensor copied; waits until all copies are complete."""
        buffers, self._buffers = iter(self._buffers), []
        devices = set()

        def copied(tensor: Tensor) -> Tensor:
            on_gpu = tensor.device.type == "cuda"
            buffer = next(buffers, None)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                # In one piece, whatever the tensor is a part of: the file would hold all of that.
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
            buffer.copy_(tensor.detach(), non_blocking=on_gpu)
            self._buffers.append(buffer)
            if on_gpu:
                devices.add(tensor.device)
            return buffer

        copy = map_tensors(values, copied)
        for device in devices:
            torch.cuda.synchronize(device)
        return copy


class BackgroundWriter:
    """Runs one piece of work at a time in a thread of its own."""

    def __init__(self) -> None:
        # Python waits for the thread before it ends: a write that was begun is brought to its end.
        self._thread = futures.ThreadPoolExecutor(1, "checkpoint")
        self._work: futures.Future[None] | None = None
        _WRITERS.add(self)

    def start(self, work: Callable[[], None]) -> None:
        """Starts a piece of work; the one before must have been waited for."""
        assert self._work is None
        self._work = self._thread.submit(work)

    def wait(self) -> None:
        """Waits for the work that is under way, and raises its error."""
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def raise_error(self) -> None:
        """Raises the error of work that has failed meanwhile; does not wait."""
        if self._work is not None and self._work.done():
            self.wait()


def finish_writes(seconds: float) -> None:
    """Waits for what the writers of this process are writing, before a program ends at once.

    Args:
        seconds: that this may take. Errors stay with the writers.
    """
    begun = [writer._work for writer in list(_WRITERS)]
    futures.wait([work for work in begun if work is not None], timeout=seconds)
