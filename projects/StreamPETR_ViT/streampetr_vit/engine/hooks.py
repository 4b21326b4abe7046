"""Hooks of the training loop beside detectron2's own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import HookBase, hooks

from streampetr_vit.engine.distributed import broadcast_float
from streampetr_vit.errors import InputError

logger = logging.getLogger(__name__)

# (iteration, progress in 0..1) -> factor on each group's learning rate
Schedule = Callable[[int, float], float]


class ScheduleHook(HookBase):
    """Sets each group's learning rate before each step, and keeps the time budget.

    The factor depends on the iteration and on the progress, which is iteration / max_iter or, if
    a time budget is given and further along, elapsed / max_seconds. Nothing but the elapsed time
    has to be restored on resume, so a changed max_iter or base rate acts at once.

    Args:
        schedule: factor on the base rates.
        optimizer: its groups' rates at this moment are the base rates.
        max_seconds: wall time after which training ends (after the step at hand), time before a
            resume included; None for no limit. With a limit, a run is not reproducible.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self,
        schedule: Schedule,
        optimizer: torch.optim.Optimizer,
        max_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_seconds is not None and max_seconds <= 0:
            raise InputError(
                f"train.max_seconds={max_seconds}: must be positive, or null for no limit"
            )
        self._schedule = schedule
        self._optimizer = optimizer
        self._max_seconds = max_seconds
        self._clock = clock
        self._base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self._elapsed_s = 0.0
        self._start_s = 0.0
        self._planned_iters = 1

    @property
    def elapsed_s(self) -> float:
        """Wall time of training so far, in seconds, before a resume included."""
        return self._elapsed_s

    def before_train(self) -> None:
        """Starts the clock; ends at once if the budget was used up before a resume."""
        self._planned_iters = self.trainer.max_iter
        self._start_s = self._clock() - self._elapsed_s
        if self._out_of_time():
            self.trainer.max_iter = self.trainer.iter

    def before_step(self) -> None:
        """Sets the learning rates of the step at hand."""
        iteration = self.trainer.iter
        factor = self._schedule(iteration, self._progress(iteration))
        for group, base_lr in zip(self._optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = base_lr * factor
        self.trainer.storage.put_scalar("lr", max(self._base_lrs) * factor, smoothing_hint=False)

    def after_step(self) -> None:
        """Makes the step just done the last one if the time is used up."""
        self._elapsed_s = self._clock() - self._start_s
        if self._max_seconds is None:
            return
        # All ranks must stop at the same step: rank 0's clock counts.
        self._elapsed_s = broadcast_float(self._elapsed_s)
        if self._out_of_time():
            self.trainer.max_iter = self.trainer.iter + 1

    def state_dict(self) -> dict[str, Any]:
        """The time used so far."""
        return {"elapsed_s": self._elapsed_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the clock of an earlier run."""
        self._elapsed_s = float(state_dict["elapsed_s"])

    def _progress(self, iteration: int) -> float:
        by_iterations = iteration / self._planned_iters
        if self._max_seconds is None:
            return by_iterations
        return min(1.0, max(by_iterations, self._elapsed_s / self._max_seconds))

    def _out_of_time(self) -> bool:
        return self._max_seconds is not None and self._elapsed_s >= self._max_seconds


class CheckpointHook(hooks.PeriodicCheckpointer):
    """detectron2's periodic checkpoints, also when training ends before its planned last step."""

    def after_step(self) -> None:
        """Saves every period, and after the last step."""
        self.max_iter = self.trainer.max_iter
        super().after_step()


class BatchHook(HookBase):
    """Keeps a run on its schedule: iterations of another batch are other parts of an epoch.

    Args:
        global_batch: of this run, lanes of all processes.
        epoch_iters: its steps per epoch.
        max_iter: its steps in all.
        is_given: whether `max_iter` was asked for, and not derived from epochs. Then another batch
            than the checkpoint's is a warning.
    """

    def __init__(self, global_batch: int, epoch_iters: int, max_iter: int, is_given: bool) -> None:
        self._batch, self._epoch_iters = global_batch, epoch_iters
        self._max_iter, self._is_given = max_iter, is_given

    def state_dict(self) -> dict[str, Any]:
        """What an iteration of this run is."""
        return {"global_batch": self._batch, "epoch_iters": self._epoch_iters}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compares with an earlier run.

        Raises:
            InputError: another batch, and the number of steps was not asked for.
        """
        theirs = state_dict["global_batch"]
        if theirs == self._batch:
            return
        done = self.trainer.iter + 1
        epochs = done / state_dict["epoch_iters"]
        message = (
            f"the checkpoint was trained with {theirs} lanes in all processes, this run has "
            f"{self._batch}: {done} iterations were {epochs:.3g} epochs, and count as "
            f"{done / self._epoch_iters:.3g} here"
        )
        if self._is_given:
            logger.warning("%s; training ends at train.max_iter=%d", message, self._max_iter)
            return
        rest = max(1, round(self._max_iter - epochs * self._epoch_iters))
        raise InputError(
            f"cannot resume: {message}. Choose dataloader.train.lanes_per_rank such that lanes "
            f"times processes is {theirs}; or pass train.max_iter={done + rest}, which trains the "
            "rest of the epochs with the batch of this run"
        )


class StreamStateHook(HookBase):
    """Puts the position of the training streams into checkpoints, and goes on from there.

    The memories of the streams are not saved: the first batch after a resume starts each stream
    anew at its frame.

    Args:
        loader: with `state_dict` and `load_state_dict`; not iterated before a checkpoint is loaded.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def state_dict(self) -> dict[str, Any]:
        """The loader's."""
        return dict(self._loader.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The loader's."""
        self._loader.load_state_dict(state_dict)
