"""Finds, on a CPU, what would make the host wait for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# What each of them does on a GPU.
REFUSED = {
    aten._local_scalar_dense: "reads a number back (item, int, bool, if, a Python index)",
    aten.nonzero: "has a shape that depends on values",
    aten.masked_select: "has a shape that depends on values",
    aten.bincount: "has a shape that depends on values",
    aten._unique2: "has a shape that depends on values",
    aten.unique_dim: "has a shape that depends on values",
    aten.unique_consecutive: "has a shape that depends on values",
    aten.equal: "reads a comparison back",
    aten._linalg_check_errors: "reads back whether a matrix was singular",
    aten.lift_fresh: "copies a fresh tensor from the host",
}
INDEXED = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)


class SynchronisationError(AssertionError):
    """Something would wait for the device."""


class NoSynchronisation(TorchDispatchMode):
    """Within it, operations that wait for a GPU, if they ran on one, raise."""

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        packet: Callable[..., Any] = operation.overloadpacket
        if packet in REFUSED:
            raise SynchronisationError(f"{operation} {REFUSED[packet]}")
        if packet in INDEXED and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        ):
            raise SynchronisationError(
                f"{operation} with a mask has a shape that depends on values"
            )
        return operation(*args, **(kwargs or {}))
