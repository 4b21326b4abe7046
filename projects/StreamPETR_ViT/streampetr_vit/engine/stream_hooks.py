"""Hooks that carry the position of a training over a resume: its batch and its streams."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.engine import HookBase

from streampetr_vit.engine.clock import Clock
from streampetr_vit.errors import InputError

logger = logging.getLogger(__name__)


class BatchHook(HookBase):
    """Compares the batch of a resumed run with that of its checkpoint.

    Args:
        lanes: of all processes of this run.
        accumulate: batches per step.
        clock: of a run that begins with this batch.
        restarts: whether another batch is allowed.

    Attributes:
        clock: of this run.
        position: batches of an equally long training with this run's lanes, if those are not the
            checkpoint's; the streams begin anew there.
    """

    def __init__(self, lanes: int, accumulate: int, clock: Clock, restarts: bool = False) -> None:
        self._lanes, self._accumulate, self._restarts = lanes, accumulate, restarts
        self.clock = clock
        self.position: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """The batch, how many steps of it are an epoch, and since when."""
        return {
            "lanes": self._lanes,
            "accumulate": self._accumulate,
            "epoch_iters": self.clock.epoch_iters,
            "start_iter": self.clock.start_iter,
            "start_epochs": self.clock.start_epochs,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compares with the checkpoint, and goes on counting from it.

        Raises:
            InputError: another batch, which was not allowed.
        """
        # Older checkpoints know the batch as a whole, without accumulation.
        lanes = state_dict.get("lanes") or state_dict["global_batch"]
        accumulate = state_dict.get("accumulate", 1)
        start = (state_dict.get("start_iter", 0), state_dict.get("start_epochs", 0.0))
        if (lanes, accumulate) == (self._lanes, self._accumulate):
            if start[0]:
                self.clock = self.clock.begun_at(*start)
            return
        done = self.trainer.iter + 1
        theirs = Clock(state_dict["epoch_iters"], done, None, *start)
        epochs = theirs.epochs_done(done)
        message = (
            f"the checkpoint was trained with {_batch(lanes, accumulate)}, this run has "
            f"{_batch(self._lanes, self._accumulate)}"
        )
        if not self._restarts and self.clock.epochs is not None:
            raise InputError(
                f"cannot resume: {message}. To go on exactly, set dataloader.train.lanes_per_rank "
                f"so that lanes times processes is {lanes}, and train.accumulate={accumulate}; or "
                "pass train.restart_streams=True: all streams begin anew, and epochs and learning "
                f"rate go on from epoch {epochs:.3g}"
            )
        self.position = round(epochs * self.clock.epoch_iters) * self._accumulate
        self.clock = self.clock.begun_at(done, epochs)
        logger.warning(
            "%s; the streams begin anew at epoch %.4g, and training ends after %d iterations",
            message,
            epochs,
            self.clock.max_iter,
        )


class StreamStateHook(HookBase):
    """Saves the position of the training streams in checkpoints, and restores it.

    The loader must not be iterated before a checkpoint is loaded.

    Attributes:
        continues: whether the streams go on as in the checkpoint that was loaded.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.continues = False

    def state_dict(self) -> dict[str, Any]:
        """The loader's position."""
        return dict(self._loader.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Moves the loader to a saved position, if its frames are those of the checkpoint."""
        self._loader.load_state_dict(state_dict)
        self.continues = dict(self._loader.state_dict()) == dict(state_dict)

    def restart_at(self, batches: int) -> None:
        """Moves the loader behind a number of batches of this run."""
        self._loader.load_state_dict({**self._loader.state_dict(), "delivered": batches})
        self.continues = False


def _batch(lanes: int, accumulate: int) -> str:
    steps = f" and train.accumulate={accumulate}" if accumulate > 1 else ""
    return f"{lanes} lanes in all processes{steps}"
