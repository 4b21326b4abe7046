"""The training loop: one step in the chosen precision, guarded against non-finite numbers."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from streampetr_vit.engine.distributed import reduce_mean
from streampetr_vit.errors import InputError, UserError

logger = logging.getLogger(__name__)

AUTOCAST_DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device_type: str) -> AbstractContextManager:
    """The context in which a model is called for a precision.

    Args:
        precision: "float32", "bf16" or "fp16".
        device_type: "cpu" or "cuda".

    Raises:
        ValueError: unknown precision, or one that this device does not have.
    """
    if precision not in AUTOCAST_DTYPES:
        raise InputError(
            f"train.precision={precision!r}: allowed are {', '.join(map(repr, AUTOCAST_DTYPES))}"
        )
    if precision == "bf16" and device_type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("train.precision='bf16': this GPU has no bfloat16; use 'fp16'")
    dtype = AUTOCAST_DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device_type, dtype)


class InPrecision(nn.Module):
    """Calls a model in a precision, and leaves the caller in its own.

    What reads and prepares the data beside it, in the same process, keeps float32 that way.

    Args:
        model: on its device.
        precision: see `autocast`.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        super().__init__()
        self.model, self._precision = model, precision
        self._device_type = next(model.parameters()).device.type
        autocast(precision, self._device_type)  # refuses an impossible precision now
        self.training = model.training

    def forward(self, *inputs: Any) -> Any:
        """As the model."""
        with autocast(self._precision, self._device_type):
            return self.model(*inputs)


class NonFiniteTrainingError(UserError, FloatingPointError):
    """Losses or gradients were NaN or infinite for too many steps in a row."""


class StreamingTrainer(TrainerBase):
    """detectron2's training loop with precision, gradient clipping and a guard against NaN.

    The sum of the model's losses is minimised. A step whose losses or gradient norm are not finite
    on any rank leaves the weights as they are on all ranks; it is counted in the scalar
    `skipped_steps`. (With "fp16" an occasional skip belongs to the search for the loss scale.)

    The scalars of a step (each loss, their sum, the gradient norm) travel in one tensor: one
    reduction over ranks and one copy to the host per step.

    Args:
        model: list of samples -> dict of scalar losses; on its device, wrapped for distribution.
        optimizer: over the model's parameters.
        data_loader: yields lists of samples without end; may be set later, before `train`.
        precision: "float32", "bf16" or "fp16" (with torch's GradScaler).
        clip_grad_norm: L2 norm over all gradients above which they are scaled down; None for no
            clipping.
        max_consecutive_skips: non-finite steps in a row after which training fails.
        forget: called when a loss was not finite, to void what the model carries from frame to
            frame: a NaN in a temporal memory would reach all later frames of its stream.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        data_loader: Iterable[list[dict[str, Any]]] | None = None,
        *,
        precision: str = "float32",
        clip_grad_norm: float | None = 35.0,
        max_consecutive_skips: int = 50,
        forget: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.model = model.train()
        self.optimizer = optimizer
        self.data_loader = data_loader
        self.skipped_steps = 0
        self._consecutive_skips = 0
        self._max_consecutive_skips = max_consecutive_skips
        self._forget = forget or _nothing
        self._clip_norm = math.inf if clip_grad_norm is None else float(clip_grad_norm)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._device_type = self._parameters[0].device.type
        self._precision = precision
        autocast(precision, self._device_type)  # refuses an impossible precision now
        self._scaler = torch.amp.GradScaler(self._device_type, enabled=precision == "fp16")
        self._batches: Iterator[list[dict[str, Any]]] | None = None

    def train(self, start_iter: int, max_iter: int) -> None:
        """Runs steps `start_iter` to `max_iter` - 1.

        As detectron2's, but a hook may lower `max_iter` on the way to end training early; hooks
        that act after the last step then see that it is the last one.
        """
        logger.info("training from iteration %d to %d", start_iter, max_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except Exception as error:
                # What a user can mend is said once, by the tool, without a traceback.
                logger.error(
                    "training failed at iteration %d",
                    self.iter,
                    exc_info=not isinstance(error, UserError),
                )
                # The hooks' last round would take this step for the last one, and evaluate.
                self.max_iter = self.iter + 2
                raise
            finally:
                self.after_train()

    def run_step(self) -> None:
        """One batch: losses, gradients, and the optimiser's step if all of them are finite."""
        start = time.perf_counter()
        batch = self._next_batch()
        self.storage.put_scalar("data_time", time.perf_counter() - start)

        with autocast(self._precision, self._device_type):
            losses = self.model(batch)
        total = _total(losses)
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(total).backward()
        # detectron2's current hooks have this moment, v0.6's do not
        for hook in self._hooks:
            getattr(hook, "after_backward", _nothing)()
        self._scaler.unscale_(self.optimizer)
        # Over what the optimiser sees; scales nothing when the limit is infinite.
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)

        scalars = _mean_over_ranks({**losses, "total_loss": total, "grad_norm": grad_norm})
        bad = [name for name, value in scalars.items() if not math.isfinite(value)]
        if bad:
            self.optimizer.zero_grad(set_to_none=True)
            if "total_loss" in bad:
                self._forget()
        else:
            self._scaler.step(self.optimizer)
        self._scaler.update()
        self._record(scalars, bad)

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimiser, loss scale and the count of skipped steps."""
        return {
            **super().state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self._scaler.state_dict(),
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` holds.

        Settings of the optimiser (weight decay, betas and so on) stay those of this run.

        Raises:
            ValueError: the optimiser's groups differ from the checkpoint's.
        """
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(_with_settings_of(self.optimizer, state_dict["optimizer"]))
        if self._scaler.is_enabled() and state_dict["grad_scaler"]:
            self._scaler.load_state_dict(state_dict["grad_scaler"])
        self.skipped_steps = state_dict["skipped_steps"]

    def _next_batch(self) -> list[dict[str, Any]]:
        if self._batches is None:
            if self.data_loader is None:
                raise ValueError("StreamingTrainer.data_loader is not set")
            self._batches = iter(self.data_loader)
        return next(self._batches)

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
                f"{self._consecutive_skips} steps in a row were not finite, the last at iteration "
                f"{self.iter}: {', '.join(bad)}. The weights are those before the first of them. "
                "Lower optimizer.lr, use train.precision=float32 or bf16, or check the data; "
                "train.max_consecutive_skips is the limit."
            )


def _with_settings_of(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's saved state, with the settings of another for each group.

    They must be in place before it is loaded: torch puts the state where they ask for it (fused).
    """
    groups = optimizer.param_groups
    sizes, ours = ([len(group["params"]) for group in g] for g in (saved["param_groups"], groups))
    if sizes != ours:
        raise InputError(
            "cannot resume: the checkpoint's optimiser has other parameter groups than this run "
            f"({sum(sizes)} tensors in {len(sizes)} groups, here {sum(ours)} in {len(ours)}). "
            "Resume with the model and optimizer.params of the checkpoint, or start anew from its "
            "weights with train.init_checkpoint and without --resume."
        )
    merged = [
        {**group, "params": old["params"]}
        for old, group in zip(saved["param_groups"], groups, strict=True)
    ]
    return {**saved, "param_groups": merged}


def _total(losses: Any) -> Tensor:
    """The sum of a model's losses, in float32."""
    if not isinstance(losses, dict) or not losses:
        raise TypeError(
            f"in training the model must return a dict of losses, got {type(losses).__name__}"
        )
    return torch.stack([value.float() for value in losses.values()]).sum()


def _mean_over_ranks(scalars: dict[str, Tensor]) -> dict[str, float]:
    """Means over ranks as numbers. NaN or infinity on one rank shows on every rank."""
    names = sorted(scalars)
    values = torch.stack([scalars[name].detach().float() for name in names])
    return dict(zip(names, reduce_mean(values).tolist(), strict=True))


def _nothing() -> None:
    """What is done where nothing was asked for."""
