"""Names of tensors, translated in both directions by tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from streampetr_vit.errors import InputError

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Unused:
    """Why a foreign tensor has no place in our detector."""

    why: str


ROTARY = Unused("rotary tables, computed for the image size")
_ROTARY_PARTS = frozenset(("rope", "rope_win", "rope_glb"))


def is_rotary_table(name: str) -> bool:
    """Whether a foreign tensor is a rotary table; no module of ours stores one."""
    # Whole parts of the name: "europe.weight" is none.
    return not _ROTARY_PARTS.isdisjoint(name.split("."))


@dataclass(frozen=True)
class Renaming:
    """The tensors of one module, as pairs of (foreign, ours).

    Attributes:
        module: what has these tensors, for messages.
        prefixes: one of them starts every name; the first that fits is used.
        inner: replaced anywhere behind it, in this order.
    """

    module: str
    prefixes: Pairs
    inner: Pairs = ()

    def to_ours(self, name: str) -> str:
        """Our name of a foreign tensor, without the prefix of its module in a detector."""
        return self._rename(name, self.prefixes, self.inner)

    def to_foreign(self, name: str) -> str:
        """The way back."""
        swapped = (tuple((b, a) for a, b in pairs) for pairs in (self.prefixes, self.inner))
        return self._rename(name, *swapped)

    def weights_to_ours(
        self, state_dict: Mapping[str, Tensor], prefix: str = ""
    ) -> dict[str, Tensor]:
        """The module's weights by our names, without rotary tables.

        Args:
            state_dict: of the reference.
            prefix: of the module in a detector, such as "img_neck."; other names are left out.

        Raises:
            InputError: the module has no tensor of such a name.
        """
        return {self.to_ours(name): value for name, value in under(state_dict, prefix).items()}

    def _rename(self, name: str, prefixes: Pairs, inner: Pairs) -> str:
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
