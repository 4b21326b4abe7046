"""Hooks as a user writes them, for configurations of tests."""

from __future__ import annotations

from typing import Any

from detectron2.engine import HookBase


class Counting(HookBase):
    """Counts steps of `by`, and logs the sum."""

    def __init__(self, by: int = 1) -> None:
        self.by, self.total = by, 0

    def after_step(self) -> None:
        self.total += self.by
        name = f"total_by_{self.by}"
        self.trainer.storage.put_scalar(name, self.total, smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.total = state_dict["total"]


class Stateless(HookBase):
    """Notes the error of the last evaluation that it sees."""

    def after_step(self) -> None:
        seen = self.trainer.storage.latest().get("toy/error", (-1.0, 0))
        self.trainer.storage.put_scalar("seen_error", seen[0], smoothing_hint=False)


class OneWay(HookBase):
    """Saves what nothing can load."""

    def state_dict(self) -> dict[str, Any]:
        return {"total": 1}


class HoldsASet(Counting):
    """Saves what a checkpoint cannot hold."""

    def state_dict(self) -> dict[str, Any]:
        return {"seen": {1, 2}}


class AsksTheTrainer(Counting):
    """Has a state only where it is registered."""

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "iteration": self.trainer.iter}


def no_hook(by: int = 1) -> int:
    return by
