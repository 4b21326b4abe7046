"""Keeps the average of the weights up to date while they are trained."""

from __future__ import annotations

import logging

from detectron2.engine import HookBase

from streampetr_vit.solver.ema import WeightAverage

logger = logging.getLogger(__name__)


class AverageHook(HookBase):
    """Updates an average of the weights after each step that has changed them.

    It acts before the hooks that save or evaluate the average.

    Args:
        average: of the trained model. The checkpointer saves and restores it.
    """

    def __init__(self, average: WeightAverage) -> None:
        self._average = average
        self._skipped = 0  # steps before this one that were skipped

    def before_train(self) -> None:
        """Starts the average at the weights, unless a checkpoint gave it."""
        # Not before: the start weights are loaded after the average is made.
        if self._average.is_loaded:
            return
        if self.trainer.start_iter > 0:
            logger.warning(
                "the checkpoint has no average of the weights (ema): it starts at its weights"
            )
        self._average.restart()

    def before_step(self) -> None:
        """Notes the number of skipped steps."""
        self._skipped = self.trainer.skipped_steps

    def after_step(self) -> None:
        """Updates the average."""
        # After a skipped step the weights are as before: they would be averaged in twice.
        if self.trainer.skipped_steps == self._skipped:
            self._average.update(self.trainer.iter + 1)
