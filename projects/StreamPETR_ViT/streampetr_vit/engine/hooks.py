"""Hooks of the training loop, beside those of detectron2."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from streampetr_vit.engine.checkpoint_hook import CheckpointHook
from streampetr_vit.engine.distributed import broadcast_float, wait_for_main
from streampetr_vit.engine.signals import Interrupted, SignalWatch, name_of
from streampetr_vit.files import cannot_write

logger = logging.getLogger(__name__)

# (iteration, progress in 0..1) -> factor on each group's learning rate
Schedule = Callable[[int, float], float]


class ScheduleHook(HookBase):
    """Sets each group's learning rate before each step, and ends training when its time is up.

    The schedule reads the iteration and the progress, or elapsed time / max_seconds if that is
    further along.

    Args:
        schedule: factor on the base rates.
        optimizer: the rates that its groups have now are the base rates.
        max_seconds: wall time after which training ends, time before a resume included; None for no
            limit. A run with a limit is not reproducible.
        clock: gives seconds; tests replace it.
        progress: progress of an iteration, 0 to 1; None for iteration / max_iter.
    """

    def __init__(
        self,
        schedule: Schedule,
        optimizer: torch.optim.Optimizer,
        max_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        progress: Callable[[int], float] | None = None,
    ) -> None:
        self._schedule, self._optimizer = schedule, optimizer
        self._max_seconds, self._clock, self._by_iterations = max_seconds, clock, progress
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
            logger.warning(
                "nothing is left to train: the run has used its train.max_seconds=%g, at iteration "
                "%d; raise it to train on",
                self._max_seconds,
                self.trainer.iter,
            )
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
        iteration = self.trainer.iter
        by_iterations = iteration / self._planned_iters
        if self._by_iterations is not None:
            by_iterations = self._by_iterations(iteration)
        if self._max_seconds is None:
            return by_iterations
        return min(1.0, max(by_iterations, self.elapsed_s / self._max_seconds))

    def _out_of_time(self) -> bool:
        return self._max_seconds is not None and self.elapsed_s >= self._max_seconds


class LogHook(hooks.PeriodicWriter):
    """detectron2's writers of curves; a full disk is an error for the user.

    Args:
        folder: that the writers write into.
        writers, period: as detectron2's.
    """

    def __init__(self, folder: str, writers: list[EventWriter], period: int) -> None:
        super().__init__(writers, period)
        self._folder = folder

    def after_step(self) -> None:
        """Writes every period."""
        with self._errors():
            super().after_step()

    def after_train(self) -> None:
        """Writes what is left, and closes the files."""
        has_failed = self.trainer.iter + 1 < self.trainer.max_iter
        try:
            with self._errors():
                super().after_train()
        except Exception as error:
            if not has_failed:
                raise
            # The error that ended the training is the one to see.
            logger.error("the last line of the curves was not written: %s", error)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(os.path.join(self._folder, "metrics.json"), error) from error


class StopHook(HookBase):
    """Ends training with a checkpoint after the step in which a signal came to any rank.

    Args:
        watch: that receives the signals.
        checkpoints: that save the last step.
        advice: what to type to go on, for the log.
    """

    def __init__(self, watch: SignalWatch, checkpoints: CheckpointHook, advice: str) -> None:
        self._watch, self._checkpoints, self._advice = watch, checkpoints, advice

    def before_train(self) -> None:
        """From here on, signals wait for the end of a step."""
        self._watch.deferring = True

    def after_step(self) -> None:
        """Saves and raises `Interrupted`, on all ranks after the same step."""
        alone = comm.get_world_size() == 1
        # With one rank no step has to pass until the others know.
        if not (self._watch.received is not None if alone else self.trainer.stops):
            return
        number = self._watch.received or signal.SIGTERM  # of a rank that got none itself
        self._checkpoints.gather()
        path = self._checkpoints.save_now()
        # A rank that ends earlier has the launcher end this one, which may still be writing.
        wait_for_main()
        saved = f", saved as {path}" if path else ""
        what = f"{name_of(number)}: training stopped after iteration {self.trainer.iter}{saved}"
        raise Interrupted(number, f"{what}. {self._advice}")

    def after_train(self) -> None:
        """From here on, a signal ends the program at once."""
        self._watch.deferring = False
