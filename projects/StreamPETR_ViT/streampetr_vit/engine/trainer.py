"""The training loop: one step in the chosen precision, guarded against non-finite numbers."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from streampetr_vit.engine.distributed import reduce_mean
from streampetr_vit.engine.failures import user_error
from streampetr_vit.errors import CheckpointError, InputError, UserError
from streampetr_vit.modeling.ops.precision import autocast

logger = logging.getLogger(__name__)

_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # shaped as their tensor


class NonFiniteTrainingError(UserError, FloatingPointError):
    """Losses or gradients were NaN or infinite for too many steps in a row."""


class StreamingTrainer(TrainerBase):
    """detectron2's training loop with precision, gradient clipping and a guard against NaN.

    A step minimises the sum of the model's losses in three parts: `forward`, `backward`, `update`.
    The trainer owns the memory that goes from step to step. If losses or gradient norm are not
    finite on any rank, all ranks skip the step: the weights stay, and `skipped_steps` counts it.

    Args:
        model: called with (batch, memory), gives (dict of scalar losses, memory), see
            `distributed.training_module`; on its device.
        optimizer: over the model's parameters.
        data_loader: yields batches without end; may be set later, before `train`.
        precision: "float32", "bf16" or "fp16" (with torch's GradScaler).
        clip_grad_norm: L2 norm over all gradients above which they are scaled down; None for no
            clipping.
        max_consecutive_skips: non-finite steps in a row after which training fails.
        stop_asked: whether this rank was asked to end training.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        data_loader: Iterable[Any] | None = None,
        *,
        precision: str = "float32",
        clip_grad_norm: float | None = 35.0,
        max_consecutive_skips: int = 50,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.model, self.optimizer, self.data_loader = model.train(), optimizer, data_loader
        # After the last step; None after a skipped one whose losses were not finite.
        self.memory: Any = None
        self.skipped_steps = 0
        # After a step: some rank was asked to end training. The same on all ranks.
        self.stops = False
        self._stop_asked = stop_asked
        self._consecutive_skips = 0
        self._max_consecutive_skips = max_consecutive_skips
        # With an infinite limit, clipping scales nothing and still gives the norm.
        self._clip_norm = math.inf if clip_grad_norm is None else float(clip_grad_norm)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._device_type = self._parameters[0].device.type
        self._precision = precision
        autocast(precision, self._device_type)  # refuses an impossible precision now
        self._scaler = torch.amp.GradScaler(self._device_type, enabled=precision == "fp16")
        self._batches: Iterator[Any] | None = None

    def train(self, start_iter: int, max_iter: int) -> None:
        """Runs steps `start_iter` to `max_iter` - 1. A hook may lower `max_iter` to end early."""
        logger.info("training from iteration %d to %d", start_iter, max_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                # detectron2 counts with range(), which does not see a lowered max_iter.
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except BaseException as error:
                if isinstance(error, Exception):  # others end the program on purpose
                    # The tool prints what a user can mend in one line: no traceback here.
                    trace = user_error(error) is None
                    logger.error("training failed at iteration %d", self.iter, exc_info=trace)
                # In after_train hooks must not take this step for the last one: EvalHook would
                # evaluate, and the checkpoint hook would save model_final.
                self.max_iter = self.iter + 2
                raise
            finally:
                self.after_train()

    def run_step(self) -> None:
        """One step: losses of a batch, gradients, and the optimiser's step if all are finite."""
        start = time.perf_counter()
        batch = self.next_batch()
        self.storage.put_scalar("data_time", time.perf_counter() - start)
        losses = self.forward(batch)
        grad_norm = self.backward(losses)
        self._record(*self.update(losses, grad_norm))

    def next_batch(self) -> Any:
        """The loader's next batch."""
        if self._batches is None:
            if self.data_loader is None:
                raise ValueError("StreamingTrainer.data_loader is not set")
            # Not before the first step: a checkpoint may set the loader's position until then.
            self._batches = iter(self.data_loader)
        return next(self._batches)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The losses of a batch and their sum, "total_loss"; replaces the memory."""
        with autocast(self._precision, self._device_type):
            losses, self.memory = self.model(batch, self.memory)
        return {"total_loss": _total(losses), **losses}

    def backward(self, losses: dict[str, Tensor]) -> Tensor:
        """Computes unscaled and clipped gradients of the sum.

        Returns:
            (), their L2 norm before clipping.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(losses["total_loss"]).backward()
        # Hooks of detectron2's main branch have this moment, those of v0.6 do not.
        for hook in self._hooks:
            getattr(hook, "after_backward", _nothing)()
        self._scaler.unscale_(self.optimizer)  # the limit is for true gradients
        # The optimiser's parameters: frozen ones have no gradient.
        return nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)

    def update(
        self, losses: dict[str, Tensor], grad_norm: Tensor
    ) -> tuple[dict[str, float], list[str]]:
        """Takes the optimiser's step unless a scalar is not finite on any rank.

        Returns:
            The step's scalars, means over ranks, and the names of those that are not finite.
        """
        scalars, self.stops = _mean_over_ranks(
            {**losses, "grad_norm": grad_norm}, self._stop_asked()
        )
        bad = [name for name, value in scalars.items() if not math.isfinite(value)]
        if bad:
            self.optimizer.zero_grad(set_to_none=True)
            if "total_loss" in bad:
                # Memory may hold NaN, which would reach all later frames of its stream.
                self.memory = None
        else:
            self._scaler.step(self.optimizer)
        self._scaler.update()  # after a skip too: with fp16 it lowers the loss scale
        return scalars, bad

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimiser, loss scale and the count of skipped steps."""
        return {
            **super().state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self._scaler.state_dict(),
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` holds. The optimiser keeps this run's betas and so on.

        Raises:
            InputError: the optimiser's groups differ from the checkpoint's.
            CheckpointError: a number that no training can have written.
        """
        iteration = state_dict["iteration"]
        if not isinstance(iteration, int) or iteration < 0:
            raise CheckpointError(
                f"cannot resume: the checkpoint's iteration is {iteration!r}, no whole number: it "
                "is damaged. Resume from an earlier one"
            )
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(_with_settings_of(self.optimizer, state_dict["optimizer"]))
        if self._scaler.is_enabled() and state_dict["grad_scaler"]:
            self._scaler.load_state_dict(state_dict["grad_scaler"])
        self.skipped_steps = state_dict["skipped_steps"]

    def _record(self, scalars: dict[str, float], bad: list[str]) -> None:
        """Writes the step's scalars, or counts it as skipped."""
        if not bad:
            self._consecutive_skips = 0
            self.storage.put_scalars(**scalars)
        else:
            self.skipped_steps += 1
            self._consecutive_skips += 1
            logger.warning("iteration %d: step skipped, not finite: %s", self.iter, ", ".join(bad))
        self.storage.put_scalar("skipped_steps", self.skipped_steps, smoothing_hint=False)
        if self._consecutive_skips >= self._max_consecutive_skips:
            raise NonFiniteTrainingError(
                f"{self._consecutive_skips} steps in a row were not finite "
                f"(train.max_consecutive_skips={self._max_consecutive_skips}), the last at "
                f"iteration {self.iter}: {', '.join(bad)}. The weights are those before the first "
                "of them. Lower optimizer.lr, set train.precision=float32 or bf16, or check the "
                "data"
            )


def _with_settings_of(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's saved state with the settings of this run's groups."""
    # Before it is loaded and not after: torch puts the state on the CPU or the device according to
    # the settings (fused).
    old_groups, groups = saved["param_groups"], optimizer.param_groups
    sizes, ours = ([len(group["params"]) for group in g] for g in (old_groups, groups))
    if sizes != ours:
        raise InputError(
            "cannot resume: the checkpoint's optimiser has other parameter groups than this run "
            f"({sum(sizes)} tensors in {len(sizes)} groups, here {sum(ours)} in {len(ours)}). "
            "Resume with the model and optimizer.params of the checkpoint; or start a new training "
            "from its weights, with train.init_checkpoint and without --resume"
        )
    _check_moments(saved, groups)
    pairs = zip(old_groups, groups, strict=True)
    merged = [{**group, "params": old["params"]} for old, group in pairs]
    return {**saved, "param_groups": merged}


def _check_moments(saved: dict[str, Any], groups: list[dict[str, Any]]) -> None:
    """Refuses moments of other tensors, or with NaN, which would reach the weights in one step."""
    places = [place for group in saved["param_groups"] for place in group["params"]]
    parameters = [parameter for group in groups for parameter in group["params"]]
    for place, parameter in zip(places, parameters, strict=True):
        moments = {k: v for k, v in saved["state"].get(place, {}).items() if k in _MOMENTS}
        for name, value in moments.items():
            if value is None:  # a momentum before the first step
                continue
            if value.shape != parameter.shape:
                raise CheckpointError(
                    f"cannot resume: the optimiser's {name} of tensor {place} is "
                    f"{tuple(value.shape)} in the checkpoint, its tensor {tuple(parameter.shape)}: "
                    "the tensors were in another order. Resume with the optimizer.params of the "
                    "checkpoint; or start a new training from its weights, with "
                    "train.init_checkpoint and without --resume"
                )
            if not torch.isfinite(value).all():
                raise CheckpointError(
                    f"cannot resume: the optimiser's {name} of tensor {place} holds NaN or "
                    "infinite numbers. Resume from an earlier checkpoint; or start a new training "
                    "from its weights, with train.init_checkpoint and without --resume"
                )


def _total(losses: Any) -> Tensor:
    """The sum of a model's losses, in float32."""
    if not isinstance(losses, dict) or not losses:
        found = type(losses).__name__
        raise TypeError(f"in training the model must return a dict of losses, got {found}")
    # Float32 whatever the precision: a sum of many bf16 values loses the small ones.
    return torch.stack([value.float() for value in losses.values()]).sum()


def _mean_over_ranks(scalars: dict[str, Tensor], flag: bool) -> tuple[dict[str, float], bool]:
    """Means over ranks as numbers, and whether the flag is set on any rank.

    NaN or infinity on one rank shows on every rank.
    """
    # One tensor for all: one reduction over ranks, and one copy to the host, which waits for the
    # device. Sorted, so that all ranks agree on the order.
    names = sorted(scalars)
    values = [scalars[name].detach().float() for name in names]
    values.append(torch.full_like(values[0], float(flag)))
    *means, flags = reduce_mean(torch.stack(values)).tolist()
    return dict(zip(names, means, strict=True)), flags > 0


def _nothing() -> None:
    """Stands in for a moment that a hook does not have."""
