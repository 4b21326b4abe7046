"""Names of tensors, translated in both directions by tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from streampetr_vit.checkpoint.key_report import is_rotary_table


@dataclass(frozen=True)
class Unused:
    """A foreign tensor that no module of ours has, and why."""

    why: str


ROTARY = Unused("rotary tables, computed for the image size")


@dataclass(frozen=True)
class Renaming:
    """Pairs of (foreign, ours).

    Attributes:
        prefixes: one of them starts every name; the first that fits is used.
        inner: replaced anywhere behind it, in this order.
    """

    prefixes: tuple[tuple[str, str], ...]
    inner: tuple[tuple[str, str], ...] = ()

    def to_ours(self, name: str) -> str | None:
        """Our name of a foreign tensor; None for a name that is not in the tables."""
        return _rename(name, self.prefixes, self.inner)

    def to_foreign(self, name: str) -> str | None:
        """The foreign name of one of our tensors; None for a name that is not in the tables."""
        return _rename(name, *(tuple((b, a) for a, b in t) for t in (self.prefixes, self.inner)))


def _rename(
    name: str, prefixes: tuple[tuple[str, str], ...], inner: tuple[tuple[str, str], ...]
) -> str | None:
    for old, new in prefixes:
        if name.startswith(old):
            name = new + name[len(old) :]
            break
    else:
        return None
    for old, new in inner:
        name = name.replace(old, new)
    return name


def under(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it and without rotary tables."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state_dict.items()
        if name.startswith(prefix) and not is_rotary_table(name)
    }
