"""The exponential moving average of a model's weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from streampetr_vit.errors import CheckpointError


class WeightAverage:
    """An average of all parameters of a model, which follows them step by step.

    The n-th update keeps decay_n = decay (1 - exp(-n / warmup_iters)) of the average and takes the
    rest from the weights: the average follows quickly at first. Buffers are not averaged.

    Args:
        model: on its device, not wrapped for distribution.
        decay: that the updates reach after the warm-up, from 0 to below 1.
        warmup_iters: updates after which 63 % of the decay are reached; 0 for all at once.
        start_iter: until so many steps are done, the average equals the weights.

    Attributes:
        is_loaded: whether the average is that of a checkpoint.

    Source: the warm-up is RT-DETR's.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float = 0.9999,
        warmup_iters: int = 1000,
        start_iter: int = 0,
    ) -> None:
        self._model = model
        self._decay, self._warmup_iters, self._start_iter = decay, warmup_iters, start_iter
        self._parameters = list(model.parameters())
        self._averages = [parameter.detach().clone() for parameter in self._parameters]
        self.is_loaded = False

    def __str__(self) -> str:
        after = f", after {self._start_iter} iterations" if self._start_iter else ""
        return f"decay {self._decay:g}, warmed up over {self._warmup_iters} iterations{after}"

    def decay_at(self, iteration: int) -> float:
        """The share of the average that is kept after so many steps are done."""
        updates = iteration - self._start_iter
        if updates <= 0:
            return 0.0
        if self._warmup_iters == 0:
            return self._decay
        return self._decay * (1.0 - math.exp(-updates / self._warmup_iters))

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Moves the average towards the weights; `iteration` is the number of steps done."""
        # The count of updates follows from the iteration, so that a checkpoint need not hold it.
        torch._foreach_lerp_(self._averages, self._parameters, 1.0 - self.decay_at(iteration))

    @torch.no_grad()
    def restart(self) -> None:
        """Makes the average equal to the weights as they are now."""
        torch._foreach_copy_(self._averages, self._parameters)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """A block in which the model computes with the average.

        Nothing is copied: the parameters point to other memory meanwhile. So what has kept the
        addresses of the weights, such as the captured graph of a `Stream`, must not run inside.
        """
        weights = [parameter.data for parameter in self._parameters]
        try:
            _point_to(self._parameters, self._averages)
            yield
        finally:  # also when a signal came in the middle of it
            _point_to(self._parameters, weights)

    def state_dict(self) -> dict[str, Tensor]:
        """The model's state_dict with the average of each parameter; live tensors."""
        averages = {
            id(parameter): average
            for parameter, average in zip(self._parameters, self._averages, strict=True)
        }
        state = self._model.state_dict(keep_vars=True)
        return {name: averages.get(id(value), value.detach()) for name, value in state.items()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Takes the average of each parameter; buffers are the model's.

        Raises:
            CheckpointError: a parameter is missing, has another shape, or is not finite.
        """
        own = self.state_dict()
        for name, _ in self._model.named_parameters():
            if name not in state_dict:
                raise CheckpointError(
                    f"the average of the weights (ema) has no {name}: it is of another model. To "
                    "go on without it, set train.ema=null"
                )
            if state_dict[name].shape != own[name].shape:
                raise CheckpointError(
                    f"the average of the weights (ema): {name} has the shape "
                    f"{tuple(state_dict[name].shape)}, the model's is {tuple(own[name].shape)}: it "
                    "is of another model. To go on without it, set train.ema=null"
                )
            if not torch.isfinite(state_dict[name]).all():
                raise CheckpointError(
                    f"the average of the weights (ema): {name} holds NaN or infinite numbers. "
                    "Resume from an earlier checkpoint; or go on without it: train.ema=null"
                )
        for name, _ in self._model.named_parameters():
            own[name].copy_(state_dict[name])
        self.is_loaded = True


def _point_to(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
