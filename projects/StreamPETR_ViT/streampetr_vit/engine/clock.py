"""Where a training is on its way, in steps and in epochs."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Clock:
    """The progress of a training whose batch may have changed at a resume.

    Steps are counted through. With another batch a step is another part of an epoch, so epochs are
    counted from the step at which the batch of this run began.

    Attributes:
        epoch_iters: steps of an epoch.
        max_iter: steps in all.
        epochs: epochs in all; None where steps were asked for, which then are the measure.
        start_iter, start_epochs: what was done when this batch began.
    """

    epoch_iters: int
    max_iter: int
    epochs: float | None = None
    start_iter: int = 0
    start_epochs: float = 0.0

    def epochs_done(self, iteration: int) -> float:
        """Epochs that `iteration` steps are."""
        return self.start_epochs + (iteration - self.start_iter) / self.epoch_iters

    def progress(self, iteration: int) -> float:
        """The part of the training that `iteration` steps are: 0 to 1."""
        if self.epochs is None:
            return iteration / self.max_iter
        begun = self.start_epochs / self.epochs
        rest = max(1, self.max_iter - self.start_iter)
        return begun + (1 - begun) * (iteration - self.start_iter) / rest

    def begun_at(self, iteration: int, epochs: float) -> Clock:
        """The same epochs or steps in all, of which the batch of this run trains what is left."""
        begun = replace(self, start_iter=iteration, start_epochs=epochs)
        if self.epochs is None:
            return begun
        rest = max(0, round((self.epochs - epochs) * self.epoch_iters))
        return replace(begun, max_iter=iteration + rest)
