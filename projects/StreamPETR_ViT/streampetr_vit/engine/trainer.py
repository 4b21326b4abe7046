"""The training loop: steps in the chosen precision, guarded against non-finite numbers."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streampetr_vit.engine.distributed import reduce_mean
from streampetr_vit.engine.draws import seed_draws
from streampetr_vit.engine.failures import user_error
from streampetr_vit.engine.hook_states import hooks_state, load_hooks_state
from streampetr_vit.engine.lane_memory import gather_rows, own_memory
from streampetr_vit.engine.optimizer_state import with_settings_of
from streampetr_vit.errors import CheckpointError, UserError
from streampetr_vit.modeling.ops.precision import autocast

logger = logging.getLogger(__name__)

MEMORIES = "memories"  # the entry of a checkpoint


class NonFiniteTrainingError(UserError, FloatingPointError):
    """Losses or gradients were NaN or infinite for too many steps in a row."""


class StreamingTrainer(TrainerBase):
    """detectron2's training loop with precision, gradient clipping and a guard against NaN.

    A step minimises the sum of the model's losses: `forward` and `backward` of each of its batches,
    then `clip` and `update`. The trainer owns the memory that goes from batch to batch. If losses
    or gradient norm are not finite on any rank, all ranks skip the step: the weights stay, and
    `skipped_steps` counts it.

    Args:
        model: called with (batch, memory), gives (dict of scalar losses, memory), see
            `distributed.training_module`; on its device.
        optimizer: over the model's parameters.
        data_loader: yields batches without end; may be set later, before `train`.
        precision: "float32", "bf16" or "fp16" (with torch's GradScaler).
        clip_grad_norm: L2 norm over all gradients above which they are scaled down; None for no
            clipping.
        max_consecutive_skips: non-finite steps in a row after which training fails.
        accumulate: batches of one step, one after the other in the streams. Their gradients are
            averaged, and ranks exchange them once.
        seed: all draws of a step follow from it, the step and the rank, see `draws`; None leaves
            the generators alone.
        empty_memory: makes the memory of this rank's lanes before their first frame, to restore
            one into; None for a model whose memory is not saved.
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
        accumulate: int = 1,
        seed: int | None = None,
        empty_memory: Callable[[], Any] | None = None,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.optimizer, self.data_loader = optimizer, data_loader
        self.set_model(model)
        # After the last step; None after a skipped one whose losses were not finite.
        self.memory: Any = None
        self.max_iter = sys.maxsize  # until `train` sets it
        self.skipped_steps = 0
        # After a step: some rank was asked to end training. The same on all ranks.
        self.stops = False
        self._stop_asked = stop_asked
        self._accumulate, self._seed, self._empty_memory = accumulate, seed, empty_memory
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

    def set_model(self, model: nn.Module) -> None:
        """Trains another module from the next step on, such as the same model wrapped anew."""
        self.model = model.train()
        self._is_new = True  # no step was taken with it

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
        """One step: losses and gradients of its batches, then the optimiser's if all are finite."""
        seconds, losses = 0.0, []
        for micro_step in range(self._accumulate):
            start = time.perf_counter()
            batch = self.next_batch()
            seconds += time.perf_counter() - start
            if self._is_new:
                self._rehearse(batch)
            if self._seed is not None:
                seed_draws(self._seed, self.iter, micro_step, comm.get_rank())
            with self._without_exchange() if micro_step + 1 < self._accumulate else nullcontext():
                losses.append(self.forward(batch))
                self.backward(losses[-1], micro_step)
        self.storage.put_scalar("data_time", seconds)
        grad_norm = self.clip()
        self._record(*self.update(_mean(losses), grad_norm))

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

    def backward(self, losses: dict[str, Tensor], micro_step: int = 0) -> None:
        """Adds the gradients of a batch's sum to the step's; micro-step 0 begins with none."""
        if micro_step == 0:
            self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(losses["total_loss"] / self._accumulate).backward()

    def clip(self) -> Tensor:
        """Unscales and clips the step's gradients.

        Returns:
            (), their L2 norm before clipping.
        """
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

    def gather(self) -> dict[str, Any]:
        """What each rank owns of a checkpoint, on rank 0; to be called on all after one step."""
        return {} if self._empty_memory is None else {MEMORIES: gather_rows(self.memory)}

    def restore_memory(self, rows: Any) -> None:
        """Takes this rank's lanes from the memories of a checkpoint; None begins all anew.

        Raises:
            CheckpointError: they are of another model.
        """
        restores = rows is not None and self._empty_memory is not None
        self.memory = own_memory(rows, self._empty_memory()) if restores else None

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, optimiser, loss scale and the counts of skipped steps."""
        return {
            # The last complete step: after the last one of all, the loop has counted on.
            "iteration": min(self.iter, self.max_iter - 1),
            "hooks": hooks_state(self._hooks),
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self._scaler.state_dict(),
            "skipped_steps": self.skipped_steps,
            "consecutive_skips": self._consecutive_skips,
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
        self.iter = iteration
        load_hooks_state(self._hooks, state_dict.get("hooks", {}))
        self.optimizer.load_state_dict(with_settings_of(self.optimizer, state_dict["optimizer"]))
        if self._scaler.is_enabled() and state_dict["grad_scaler"]:
            self._scaler.load_state_dict(state_dict["grad_scaler"])
        self.skipped_steps = state_dict["skipped_steps"]
        self._consecutive_skips = state_dict.get("consecutive_skips", 0)  # older ones lack it

    def _rehearse(self, batch: Any) -> None:
        """Takes a first step's place in a later one, and drops the result."""
        self._is_new = False
        # DistributedDataParallel lays out the gradients by the order in which those of its first
        # step arrive. The layout decides in which order more than two ranks are summed. In a run
        # that was not stopped, this step is not the first and has the final layout.
        if self.iter == 0 or comm.get_world_size() <= 2:
            return
        before = [buffer.clone() for buffer in self.model.buffers()]
        with autocast(self._precision, self._device_type):
            losses, _ = self.model(batch, self.memory)
        _total(losses).backward()
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)

    def _without_exchange(self) -> AbstractContextManager[None]:
        """A block whose gradients stay on this rank."""
        exchanges = isinstance(self.model, DistributedDataParallel)
        return self.model.no_sync() if exchanges else nullcontext()

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


def _mean(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each scalar over the batches of a step."""
    if len(losses) == 1:
        return losses[0]
    return {
        name: torch.stack([part[name].detach().float() for part in losses]).mean()
        for name in losses[0]
    }


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
