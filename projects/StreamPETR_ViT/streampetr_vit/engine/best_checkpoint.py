"""The checkpoint with the best metric so far, kept beside the last one."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict

from streampetr_vit.checkpoint.files import read_checkpoint
from streampetr_vit.checkpoint.manifest import damage
from streampetr_vit.engine.agreement import on_rank_0
from streampetr_vit.engine.checkpoint_hook import CheckpointHook
from streampetr_vit.engine.distributed import wait_for_main
from streampetr_vit.errors import CheckpointError, InputError
from streampetr_vit.texts import nearest

logger = logging.getLogger(__name__)

BEST_CHECKPOINT = "model_best"


class BestCheckpointHook(HookBase):
    """Saves model_best.pth after each evaluation that is better than all before it.

    Args:
        checkpoints: that save it.
        metric: of the evaluator, task and name: "bbox3d/NDS".
        mode: "max" or "min": which values are better.
    """

    def __init__(self, checkpoints: CheckpointHook, metric: str, mode: str = "max") -> None:
        self._checkpoints, self._metric, self._mode = checkpoints, metric, mode
        self._best: float | None = None

    def before_train(self) -> None:
        """After a resume, takes the value of model_best.pth for the best so far."""
        # Not that of the checkpoint: the evaluation of its step came after it was saved.
        if self.trainer.iter > 0:
            self._best = on_rank_0(self._value_in_file)

    def after_train(self) -> None:
        """Waits until the file of the last evaluation is written."""
        self._checkpoints.wait()

    def judge(self, results: Mapping[str, Any]) -> None:
        """Saves the last complete step if it is the best; on all ranks, after each evaluation.

        Args:
            results: {task: {metric: value}} on rank 0; other ranks' are not read.

        Raises:
            InputError: the evaluation has no such metric. The steps so far are saved first.
        """
        try:
            value = on_rank_0(lambda: self._value_in(results))
        except InputError:
            self._checkpoints.gather()
            self._checkpoints.save_now()
            wait_for_main()  # a rank that ends earlier has the launcher end rank 0, too
            raise
        if not math.isfinite(value):
            logger.warning("%s is %s: not the best", self._metric, value)
        elif self._is_better(value):
            before = "there was none" if self._best is None else f"before {self._best:.5g}"
            logger.info("%s %.5g is the best so far (%s)", self._metric, value, before)
            self._best = value
            self._checkpoints.save_as(BEST_CHECKPOINT, is_last=False)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and what it is a value of."""
        return {"metric": self._metric, "mode": self._mode, "best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the best value of an earlier run, if it was chosen in the same way."""
        self._best = self._value_of(state_dict)

    def _is_better(self, value: float) -> bool:
        if self._best is None:
            return True
        return value > self._best if self._mode == "max" else value < self._best

    def _value_in(self, results: Mapping[str, Any]) -> float:
        numbers = {
            name: float(value)
            for name, value in flatten_results_dict(results).items()
            if isinstance(value, Real)
        }
        if self._metric not in numbers:
            near = nearest(self._metric, numbers) or sorted(numbers)[:30]
            raise InputError(
                f"train.best_checkpoint.metric={self._metric!r} is no metric of this evaluation, "
                f"which has {', '.join(near) or 'none'}. The training so far is saved: correct it, "
                "and go on with --resume"
            )
        return numbers[self._metric]

    def _value_in_file(self) -> float | None:
        """The value of model_best.pth; None if there is none that can be compared with."""
        path = Path(self._checkpoints.folder, f"{BEST_CHECKPOINT}.pth")
        if not path.is_file():
            if self._best is not None:
                logger.warning("%s is gone: the next evaluation writes it anew", path)
            return None
        try:
            if (reason := damage(path)) is not None:
                raise CheckpointError(reason)
            trainer = read_checkpoint(path, lazily=True).get("trainer")
        except CheckpointError as error:
            logger.warning("%s is replaced by the next evaluation: %s", path, error)
            return None
        states = trainer.get("hooks", {}) if isinstance(trainer, Mapping) else {}
        value = self._value_of(states.get(type(self).__qualname__, {}))
        if value is None:
            logger.warning(
                "%s was not chosen by the %s of %s: the next evaluation replaces it",
                path,
                self._mode,
                self._metric,
            )
        else:
            logger.info("%s %.5g of %s is the best so far", self._metric, value, path)
        return value

    def _value_of(self, state: Mapping[str, Any]) -> float | None:
        same = (state.get("metric"), state.get("mode")) == (self._metric, self._mode)
        return state.get("best") if same else None
