"""What a run will really do, derived from the data set and the processes at hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from omegaconf import DictConfig, ListConfig
from torch import nn

from streampetr_vit.engine.config import call
from streampetr_vit.errors import InputError
from streampetr_vit.solver import iterations_per_epoch


@dataclass(frozen=True)
class Recipe:
    """The length of a training.

    Attributes:
        num_samples: frames of the training set.
        lanes_per_rank: streams that each process trains on side by side.
        world_size: processes.
        epoch_iters: steps per epoch.
        max_iter: steps in all.
    """

    num_samples: int
    lanes_per_rank: int
    world_size: int
    epoch_iters: int
    max_iter: int

    @staticmethod
    def derive(
        num_samples: int,
        lanes_per_rank: int,
        world_size: int,
        epochs: float,
        max_iter: int | None = None,
    ) -> Recipe:
        """Counts steps from epochs, or takes `max_iter` where it is given."""
        epoch_iters = iterations_per_epoch(num_samples, lanes_per_rank * world_size)
        total = round(epochs * epoch_iters) if max_iter is None else max_iter
        if total < 1:
            raise InputError(f"{total} iterations: raise schedule.epochs or train.max_iter")
        return Recipe(num_samples, lanes_per_rank, world_size, epoch_iters, total)

    @property
    def global_batch(self) -> int:
        """Frames per step, over all processes."""
        return self.lanes_per_rank * self.world_size

    def describe(self, cfg: DictConfig, optimizer: torch.optim.Optimizer) -> str:
        """The block that the log shows before training."""
        rates = ", ".join(
            f"{group['lr']:.4g} (weight decay {group['weight_decay']:g}, "
            f"{sum(p.numel() for p in group['params']) / 1e6:.2f} M parameters)"
            for group in optimizer.param_groups
        )
        limit = cfg.train.max_seconds
        length = cfg.dataloader.train.get("window_length")
        entry = f"windows of {length} frames" if length else "frames"
        lines = {
            "samples": f"{self.num_samples}",
            "batch": f"{self.global_batch} {entry} = {self.lanes_per_rank} lanes "
            f"x {self.world_size} processes",
            "epochs": f"{self.max_iter / self.epoch_iters:.3g} of {self.epoch_iters} iterations",
            "iterations": f"{self.max_iter}" + (f", at most {limit:g} s" if limit else ""),
            "learning rates": rates,
            "warm-up": f"{cfg.schedule.warmup_iters} iterations from "
            f"{cfg.schedule.warmup_factor:.3g}, cosine to {cfg.schedule.end_factor:g}",
            "precision": f"{cfg.train.precision}, gradient norm at most {cfg.train.clip_grad_norm}",
        }
        return "effective recipe\n" + "\n".join(f"  {k:<15}{v}" for k, v in lines.items())


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Builds an optimiser from its description.

    Args:
        cfg: the optimizer section; its `params` is called with model=model.
        model: on its device, not wrapped for distribution.
    """
    optimizer = call(cfg, params=call(cfg.params, model=model))
    # Tuples of a configuration arrive as omegaconf lists, which checkpoints must not hold.
    for settings in (*optimizer.param_groups, optimizer.defaults):
        for name, value in settings.items():
            if isinstance(value, ListConfig):
                settings[name] = tuple(value)
    return optimizer
