"""Parts of a model that are not trained: for the first steps, or at all.

A frozen parameter requires no gradient: no gradient is computed for it and, below the first part
that trains, none of the backward pass is run. Its value stays, as the optimiser passes it over:
there is no weight decay, and its moments begin when its training begins. Dropout and the like stay
on. What is frozen at a step follows from the step alone, so a resume needs no state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from detectron2.engine import HookBase
from torch import nn

from streampetr_vit.errors import InputError
from streampetr_vit.texts import nearest

logger = logging.getLogger(__name__)


class Freezing:
    """The frozen parts of a model.

    Args:
        model: whose parameters are frozen for good at once; see `at` for the others.
        entries: of train.freeze; each has `parts`, the start of the names of its parameters, and
            may have `iters`, the steps for which it is frozen: None for all.

    Raises:
        InputError: an entry is about no parameter, or nothing is left to train.
    """

    def __init__(self, model: nn.Module, entries: Iterable[Mapping[str, Any]]) -> None:
        # The model may have parameters that never train: they must not begin to.
        trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
        self._lines: list[str] = []
        self._until: dict[nn.Parameter, int] = {}  # the step at which its training begins
        for entry in entries:
            iters = entry.get("iters")
            names = _names_below(model, entry["parts"])
            below = [trained[name] for name in names if name in trained]
            self._lines.append(_describe(entry["parts"], below, iters))
            for parameter in below:
                if iters is None:
                    parameter.requires_grad_(False)
                else:
                    self._until[parameter] = max(iters, self._until.get(parameter, 0))
        self._until = {p: step for p, step in self._until.items() if p.requires_grad}
        free = [p for p in trained.values() if p.requires_grad and p not in self._until]
        if self._lines and not free:
            raise InputError(
                f"train.freeze leaves no parameter of {type(model).__name__} to train in the first "
                "step: freeze fewer parts"
            )

    def at(self, iteration: int) -> bool:
        """Freezes the parameters that do not train in a step, and no others of the temporary ones.

        Returns:
            Whether that has changed anything.
        """
        changed = False
        for parameter, step in self._until.items():
            trains = iteration >= step
            changed |= parameter.requires_grad != trains
            parameter.requires_grad_(trains)
        return changed

    def __str__(self) -> str:
        return "; ".join(self._lines) or "nothing"


class FreezeHook(HookBase):
    """Begins the training of parts that were frozen for the first steps.

    Args:
        freezing: which parts.
        wrap: makes the trainer's module anew, see `training_module`. DistributedDataParallel
            exchanges the gradients of those parameters that required one when it was made.
    """

    def __init__(self, freezing: Freezing, wrap: Callable[[], nn.Module]) -> None:
        self._freezing, self._wrap = freezing, wrap

    def before_step(self) -> None:
        """Sets what trains in this step; on all ranks alike."""
        if not self._freezing.at(self.trainer.iter):
            return
        logger.info("iteration %d: parts that were frozen train now", self.trainer.iter)
        # The old one first: it has a copy of the gradients.
        self.trainer.model = None
        self.trainer.set_model(self._wrap())


def _names_below(model: nn.Module, parts: str) -> list[str]:
    names = [name for name, _ in model.named_parameters()]
    found = [name for name in names if name.startswith(parts)]
    if not found:
        depth = parts.rstrip(".").count(".") + 1
        modules = sorted({".".join(name.split(".")[:depth]) for name in names})
        near = nearest(parts.rstrip("."), modules, likeness=0.5) or modules[:10]
        raise InputError(
            f"train.freeze names {parts!r}, but no parameter of {type(model).__name__} starts with "
            f"it: correct it. There are {', '.join(near)}"
        )
    return found


def _describe(parts: str, parameters: list[nn.Parameter], iters: int | None) -> str:
    size = sum(p.numel() for p in parameters)
    time = "for good" if iters is None else f"for the first {iters} iterations"
    return f"{parts}* ({size / 1e6:.2f} M) {time}"
