"""Hooks of the training loop, beside those of detectron2."""

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
    """Sets each group's learning rate before each step, and ends training when its time is up.

    The schedule reads the iteration and the progress: iteration / max_iter, or elapsed time /
    max_seconds if that is further along.

    Args:
        schedule: factor on the base rates.
        optimizer: the rates that its groups have now are the base rates.
        max_seconds: wall time after which training ends, time before a resume included; None for no
            limit. A run with a limit is not reproducible.
        clock: gives seconds; tests replace it.

    Raises:
        InputError: the limit is not positive.
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
                f"train.max_seconds={max_seconds}: give a number above 0, or null for no limit"
            )
        self._schedule, self._optimizer = schedule, optimizer
        self._max_seconds, self._clock = max_seconds, clock
        # Taken from the configuration and not restored: a changed rate acts after a resume, too.
        self._base_lrs = [float(group["lr"]) for group in optimizer.param_groups]
        self.elapsed_s = 0.0  # wall time of training so far, time before a resume included
        self._start_s = 0.0
        self._planned_iters = 1

    def before_train(self) -> None:
        """Starts the clock. Ends training at once if the time was up before a resume."""
        # max_iter may be lowered later, which must not change the progress.
        self._planned_iters = self.trainer.max_iter
        self._start_s = self._clock() - self.elapsed_s
        if self._out_of_time():
            self.trainer.max_iter = self.trainer.iter

    def before_step(self) -> None:
        """Sets the learning rates of this step."""
        factor = self._schedule(self.trainer.iter, self._progress())
        for group, base_lr in zip(self._optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = base_lr * factor
        # One number stands for all groups in the log: the rate of the fastest.
        self.trainer.storage.put_scalar("lr", max(self._base_lrs) * factor, smoothing_hint=False)

    def after_step(self) -> None:
        """Makes this step the last one if the time is up."""
        self.elapsed_s = self._clock() - self._start_s
        if self._max_seconds is None:
            return
        # All ranks must stop at the same step, or the others wait for ever: rank 0's clock counts.
        self.elapsed_s = broadcast_float(self.elapsed_s)
        if self._out_of_time():
            self.trainer.max_iter = self.trainer.iter + 1

    def state_dict(self) -> dict[str, Any]:
        """The elapsed time; all else follows from the configuration."""
        return {"elapsed_s": self.elapsed_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the clock of an earlier run."""
        self.elapsed_s = float(state_dict["elapsed_s"])

    def _progress(self) -> float:
        by_iterations = self.trainer.iter / self._planned_iters
        if self._max_seconds is None:
            return by_iterations
        return min(1.0, max(by_iterations, self.elapsed_s / self._max_seconds))

    def _out_of_time(self) -> bool:
        return self._max_seconds is not None and self.elapsed_s >= self._max_seconds


class CheckpointHook(hooks.PeriodicCheckpointer):
    """detectron2's periodic checkpoints, also if training ends before its planned last step."""

    def after_step(self) -> None:
        """Saves every period, and after the last step."""
        # detectron2 reads max_iter once, before training; `ScheduleHook` may have lowered it.
        self.max_iter = self.trainer.max_iter
        super().after_step()


class BatchHook(HookBase):
    """Compares the batch of a resumed run with that of its checkpoint.

    Args:
        global_batch: lanes of all processes of this run.
        epoch_iters: its steps per epoch.
        max_iter: its steps in all.
        is_given: whether train.max_iter is set. Then another batch is a warning, not an error.
    """

    def __init__(self, global_batch: int, epoch_iters: int, max_iter: int, is_given: bool) -> None:
        self._batch, self._epoch_iters = global_batch, epoch_iters
        self._max_iter, self._is_given = max_iter, is_given

    def state_dict(self) -> dict[str, Any]:
        """The batch, and how many steps of it are an epoch."""
        return {"global_batch": self._batch, "epoch_iters": self._epoch_iters}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compares with the checkpoint.

        Raises:
            InputError: another batch, and the number of steps was derived from epochs.
        """
        # Progress is counted in iterations. With another batch they are another part of an epoch,
        # and the run would end too early or too late.
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
            f"cannot resume: {message}. Set dataloader.train.lanes_per_rank so that lanes times "
            f"processes is {theirs}; or pass train.max_iter={done + rest} to train the rest of the "
            "epochs with the batch of this run"
        )


class StreamStateHook(HookBase):
    """Saves the position of the training streams in checkpoints, and restores it.

    The loader must not be iterated before a checkpoint is loaded.
    """

    # The memories are not saved: after a resume each stream starts anew at its frame.

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def state_dict(self) -> dict[str, Any]:
        """The loader's position."""
        return dict(self._loader.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Moves the loader to a saved position."""
        self._loader.load_state_dict(state_dict)
