"""Names of tensors, translated in both directions by tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from streampetr_vit.errors import InputError

Pairs = tuple[tuple[str, str], ...]

_ROTARY_PARTS = frozenset(("rope", "rope_win", "rope_glb"))


@dataclass(frozen=True)
class Renaming:
    """The names of one module's tensors, as pairs of (foreign, ours)."""

    module: str  # for messages
    prefixes: Pairs  # one of them starts every name; the first that fits is used
    inner: Pairs = ()  # replaced anywhere behind it, in this order

    def to_ours(self, name: str) -> str:
        """Our name of a foreign tensor; an InputError if the module has none of this name."""
        return self._renamed(name, self.prefixes, self.inner)

    def to_foreign(self, name: str) -> str:
        """The way back."""
        swapped = (tuple((b, a) for a, b in pairs) for pairs in (self.prefixes, self.inner))
        return self._renamed(name, *swapped)

    def weights_to_ours(
        self, state_dict: Mapping[str, Tensor], prefix: str = ""
    ) -> dict[str, Tensor]:
        """The module's weights by our names; `prefix` is the module's in `state_dict`."""
        return {self.to_ours(name): value for name, value in under(state_dict, prefix).items()}

    def _renamed(self, name: str, prefixes: Pairs, inner: Pairs) -> str:
        for old, new in prefixes:
            if name.startswith(old):
                name = new + name.removeprefix(old)
                break
        else:
            raise InputError(
                f"{name!r} is no tensor of {self.module}, whose names start with "
                f"{', '.join(old for old, _ in prefixes)}; it is of another model"
            )
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


def is_rotary_table(name: str) -> bool:
    """Whether a foreign tensor is a rotary table; no module of ours stores one."""
    # Whole parts of the name: "europe.weight" is none.
    return not _ROTARY_PARTS.isdisjoint(name.split("."))


def examples(names: Iterable[object]) -> str:
    """The first three names, for messages."""
    listed = list(map(str, names))
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") if listed else "none"
