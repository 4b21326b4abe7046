"""Values made of tensors: change all of them, list them, move them.

A value is a tensor, or dataclasses, lists, tuples and dicts of values, nested as you like; whatever
else it holds stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def map_tensors(values: T, change: Callable[[Tensor], Tensor]) -> T:
    """The same values with every tensor in them changed, in their order."""
    return map_leaves(values, Tensor, change)


def map_leaves(values: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The same values with every leaf of one kind changed, in their order."""
    if isinstance(values, kind):
        return change(values)
    if isinstance(values, (list, tuple)):
        return type(values)([map_leaves(entry, kind, change) for entry in values])
    if isinstance(values, dict):
        return {key: map_leaves(entry, kind, change) for key, entry in values.items()}
    # A class that is a dataclass is a value of its own, no instance of it.
    if is_dataclass(values) and not isinstance(values, type):
        parts = {f.name: getattr(values, f.name) for f in fields(values)}
        return replace(values, **map_leaves(parts, kind, change))
    return values


def tensors_of(values: Any) -> list[Tensor]:
    """All tensors of a value, in the order in which `map_tensors` meets them."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(values, note)
    return found


def pinned(value: Tensor, device: torch.device | str) -> Tensor:
    """The tensor as it must lie to be copied to a device without waiting for it."""
    # The driver copies from page-locked memory by itself; from any other the host waits.
    on_the_way_to_gpu = value.device.type == "cpu" and torch.device(device).type == "cuda"
    return value.pin_memory() if on_the_way_to_gpu and not value.is_pinned() else value


def move_tensor(value: Tensor, device: torch.device | str) -> Tensor:
    """Copies to a device without waiting for it; gives what is there already as it is."""
    return pinned(value, device).to(device, non_blocking=True)
