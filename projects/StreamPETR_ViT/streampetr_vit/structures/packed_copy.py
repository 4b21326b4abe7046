"""Many small tensors to the device in one copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

from streampetr_vit.structures.tensors import map_tensors, tensors_of

T = TypeVar("T")

# A tensor of its own begins at such an address at least. Kernels are chosen by the alignment of
# their inputs (cuBLAS's by up to 256 bytes, compiled code's by 16): the same values must meet the
# same kernel, packed or not.
_ALIGNMENT = 256


def packed_to(values: T, device: torch.device) -> T:
    """Equal values (see `tensors`) on another device, their tensors in one asynchronous copy.

    Each tensor is on the CPU or on `device` already. The tensors share memory: nobody may write
    to them in place.
    """
    # On the CPU nothing is packed, and nothing copied.
    if device.type == "cpu":
        return map_tensors(values, lambda tensor: tensor.to(device))
    # A training step has dozens of tensors, a few kB in all. Each copy of its own would cost a call
    # of the driver, and from pageable memory a wait as well.
    return carried(
        values, lambda packed: packed.to(device, non_blocking=True), pin=device.type == "cuda"
    )


def carried(values: T, carry: Callable[[Tensor], Tensor], pin: bool = False) -> T:
    """Packs what is on the CPU, carries the (n,) uint8 bytes elsewhere, and unpacks them there.

    Args:
        values: as for `packed_to`.
        carry: maps bytes on the CPU to equal bytes.
        pin: packs into page-locked memory.
    """
    on_host = [tensor for tensor in tensors_of(values) if tensor.device.type == "cpu"]
    if not on_host:  # also inside the capture of a CUDA graph, where no memory may be pinned
        return values
    # A fresh buffer each time: torch keeps freed page-locked memory for the next step, and holds it
    # back until the device has read it. A buffer of our own would need an event for that.
    moved = iter(unpack(carry(pack(on_host, pin)), on_host))
    # The same walk again: the moved tensors come in the order in which they were found.
    return map_tensors(
        values, lambda tensor: next(moved) if tensor.device.type == "cpu" else tensor
    )


def pack(tensors: Sequence[Tensor], pin: bool = False) -> Tensor:
    """The bytes of CPU tensors of any shapes and dtypes, one after the other, as (n,) uint8."""
    starts = _starts(tensors)  # multiples of 256 bytes, and so is n
    packed = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=pin)
    for tensor, place in zip(tensors, _places(packed, tensors, starts), strict=True):
        place.copy_(tensor)
    return packed


def unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undoes `pack`, on any device: contiguous views in the order, shapes and dtypes of `like`."""
    return _places(packed, like, _starts(like))


def _starts(tensors: Sequence[Tensor]) -> list[int]:
    """The first byte of each tensor, and the number of bytes of all."""
    sizes = (tensor.nbytes + -tensor.nbytes % _ALIGNMENT for tensor in tensors)
    return [0, *accumulate(sizes)]


def _places(packed: Tensor, like: Sequence[Tensor], starts: Sequence[int]) -> list[Tensor]:
    """Where each tensor lies, as contiguous views."""
    by_dtype: dict[torch.dtype, Tensor] = {}
    places = []
    for tensor, start in zip(like, starts, strict=False):
        dtype = tensor.dtype
        if dtype not in by_dtype:  # a view of all bytes for each dtype, however many tensors
            by_dtype[dtype] = packed.view(dtype)
        if not tensor.is_contiguous():  # only its strides are wrong; its bytes are not read here
            tensor = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        place = (tensor.shape, tensor.stride(), start // dtype.itemsize)
        places.append(by_dtype[dtype].as_strided(*place))
    return places
