"""Several cars side by side in one pass of the network, and apart again.

Shape letters: B cars, M entries of the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

import torch

from streampetr_vit.data.image_io import BadImageError
from streampetr_vit.errors import InputError
from streampetr_vit.inference.preparation import Prepared
from streampetr_vit.modeling.temporal.memory import TemporalMemory


def alike(prepared: Sequence[Prepared]) -> list[tuple[int, ...]]:
    """Rows whose pictures can be stacked, that is: with equally many cameras."""
    rows: dict[int, list[int]] = {}
    for row, moment in enumerate(prepared):
        rows.setdefault(len(moment.cameras), []).append(row)
    return [tuple(group) for group in rows.values()]


def joined(memories: Sequence[TemporalMemory]) -> TemporalMemory:
    """Memories (1, M, ...) of one car each -> of all, (B, M, ...)."""
    if len(memories) == 1:
        return memories[0]
    names = [field.name for field in fields(TemporalMemory)]
    return TemporalMemory(
        **{name: torch.cat([getattr(memory, name) for memory in memories]) for name in names}
    )


def parted(memory: TemporalMemory, length: int) -> list[TemporalMemory]:
    """The inverse of `joined`.

    Args:
        memory: (B, M or more, ...), as the network leaves it.
        length: M. Older entries are cut off, as the next frame does: a memory that was read from a
            file, or that no frame has filled, has as many.
    """
    cars = len(memory.embedding)
    return [memory.map(lambda value, row=row: value[row : row + 1, :length]) for row in range(cars)]


@contextmanager
def naming_car(row: int, cars: int) -> Iterator[None]:
    """Puts the row of one of several cars in front of the message of an error."""
    try:
        yield
    except (InputError, BadImageError) as error:
        if cars == 1:
            raise
        raise type(error)(f"car {row}: {error}") from error
