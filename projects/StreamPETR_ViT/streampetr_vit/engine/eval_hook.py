"""When a training is evaluated: every period, at the end, and where a stop came in between."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from detectron2.engine import hooks

from streampetr_vit.engine.agreement import on_rank_0
from streampetr_vit.report.curves import read_scalars

logger = logging.getLogger(__name__)


class PeriodicEvaluation(hooks.EvalHook):
    """detectron2's hook, which after a resume makes up for an evaluation that is missing.

    The checkpoint of a step is written before the evaluation of that step. A run that was ended
    between the two would lack its metrics, and perhaps its best checkpoint, for good.

    Args:
        period, function: as detectron2's.
        folder: whose metrics.json has the evaluations so far.
    """

    def __init__(self, period: int, function: Callable[[], Any], folder: str) -> None:
        super().__init__(period, function)
        self._folder = folder

    def before_step(self) -> None:
        """Evaluates the step before the first one of a resumed run, if that is missing."""
        # Not in before_train: then all hooks have theirs behind them.
        trainer, start = self.trainer, self.trainer.start_iter
        is_due = self._period > 0 and start > 0 and start % self._period == 0
        if not is_due or trainer.iter != start or on_rank_0(lambda: self._has_metrics(start)):
            return
        logger.info("the evaluation after iteration %d is missing: it is made up for", start - 1)
        trainer.iter = trainer.storage.iter = start - 1  # whose metrics and checkpoint these are
        try:
            self._do_eval()
        finally:
            trainer.iter = trainer.storage.iter = start

    def _has_metrics(self, start: int) -> bool:
        """Whether metrics.json has an evaluation after so many steps."""
        path = os.path.join(self._folder, "metrics.json")
        if not os.path.isfile(path):
            return False
        # One at the end of a run is noted under the number of steps. "/" stands behind a task.
        found = read_scalars(path)
        return any("/" in name and {start - 1, start} & set(found[name]) for name in found)
