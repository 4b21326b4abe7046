"""What a loader delivers, and how it travels from a worker process and into page-locked memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.structures import Sample
from streampetr_vit.structures.packed_copy import pack, unpack
from streampetr_vit.structures.tensors import map_leaves

_SMALL_BYTES = 1 << 16  # all but pictures


@dataclass(frozen=True)
class _Slot:
    """Stands for a packed tensor."""

    number: int


class Batch(list[Any]):
    """One entry per lane: a sample, or the samples of a window in temporal order."""

    def samples(self) -> Iterator[Sample]:
        """All samples, entry by entry."""
        for entry in self:
            yield from entry if isinstance(entry, list) else [entry]

    def pin_memory(self) -> Batch:
        """Moves the pictures to page-locked memory; torch's loaders call it."""

        def pinned(entry: Any) -> Any:
            if isinstance(entry, Sample):
                # The small tensors stay: `packed_to` puts them into such memory together.
                return replace(entry, images=entry.images.pin_memory())
            return [pinned(sample) for sample in entry]

        return Batch(map(pinned, self))

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process the small tensors travel as one. Each on its own would be a file that
        # both processes map: with 2D boxes there are 33 in a sample.
        small: list[Tensor] = []

        def take(tensor: Tensor) -> Tensor | _Slot:
            if tensor.nbytes > _SMALL_BYTES:
                return tensor
            small.append(tensor)
            return _Slot(len(small) - 1)

        entries = map_leaves(list(self), Tensor, take)
        kinds = [(tuple(tensor.shape), tensor.dtype) for tensor in small]
        return _restored, (entries, pack(small), kinds)


def _restored(
    entries: list[Any], packed: Tensor, kinds: list[tuple[tuple[int, ...], torch.dtype]]
) -> Batch:
    # `unpack` reads shapes and types only.
    like = [torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in kinds]
    tensors = unpack(packed, like)
    return Batch(map_leaves(entries, _Slot, lambda slot: tensors[slot.number]))
