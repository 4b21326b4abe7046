"""Matrix products as coarse as a GPU may make them: on a CPU, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# The operators that a product becomes: @, matmul, einsum, tensordot, linear, cdist of p = 2.
PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.addbmm, aten.mv, aten.addmv, aten.dot}
PRODUCTS |= {aten.linear, aten.linalg_inv_ex, torch.ops.mkldnn._linear_pointwise}


def coarse(value: Any) -> Any:
    """A float32 tensor with 10 bits of mantissa, as TF32 has; all else as it is."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return value
    bits = value.contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


class CoarseProducts(TorchDispatchMode):
    """Within it, the inputs of float32 matrix products are rounded. `count` says of how many."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if operation.overloadpacket in PRODUCTS:
            self.count += any(isinstance(x, Tensor) and x.dtype == torch.float32 for x in args)
            args = tuple(map(coarse, args))
        return operation(*args, **(kwargs or {}))
