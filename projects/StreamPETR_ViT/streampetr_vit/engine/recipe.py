"""What a run does in numbers: its length and learning rates for this data set and batch."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass

import torch
from omegaconf import DictConfig, ListConfig
from torch import nn

from streampetr_vit.engine.clock import Clock
from streampetr_vit.engine.config import call
from streampetr_vit.engine.setting_tables import MOST_ITERS
from streampetr_vit.errors import InputError
from streampetr_vit.solver import WeightAverage, batch_lr_factor, iterations_per_epoch
from streampetr_vit.solver.schedule import PUBLISHED_LR

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """The length of a training, and the factor on its learning rate."""

    num_samples: int  # frames of the training set
    lanes_per_rank: int  # streams that each process trains on side by side
    world_size: int  # processes
    epoch_iters: int  # steps per epoch
    max_iter: int  # steps in all
    lr_batch: int | None = None  # frames per step that the rate is meant for; None: not scaled
    unit: str = "frames"  # what a lane gives per batch, or "windows", for the log
    accumulate: int = 1  # batches per step
    epochs: float | None = None  # that were asked for; None if it was `max_iter`

    @staticmethod
    def derive(
        num_samples: int,
        lanes_per_rank: int,
        world_size: int,
        epochs: float,
        max_iter: int | None = None,
        lr_batch: int | None = None,
        unit: str = "frames",
        accumulate: int = 1,
    ) -> Recipe:
        """Counts steps from epochs, or takes `max_iter` if it is given."""
        epoch_iters = iterations_per_epoch(num_samples, lanes_per_rank * world_size * accumulate)
        total = round(epochs * epoch_iters) if max_iter is None else max_iter
        if total < 1:
            raise InputError(
                f"{total} iterations: raise schedule.epochs ({epochs:g}) or train.max_iter "
                f"({'null' if max_iter is None else max_iter})"
            )
        if total > MOST_ITERS:
            raise InputError(
                f"{total} iterations are more than {MOST_ITERS}: lower schedule.epochs ({epochs:g})"
            )
        return Recipe(
            num_samples,
            lanes_per_rank,
            world_size,
            epoch_iters,
            total,
            lr_batch,
            unit,
            accumulate,
            epochs if max_iter is None else None,
        )

    @staticmethod
    def of(cfg: DictConfig, num_samples: int, world_size: int) -> Recipe:
        """The recipe of a whole configuration.

        Raises:
            InputError: no iterations, or auto_scale without lr_batch.
        """
        # The config.yaml of an older run has no auto_scale: that run trained without it.
        scale = cfg.train.get("auto_scale", False)
        if scale and cfg.schedule.get("lr_batch") is None:
            raise InputError(
                "train.auto_scale=True needs schedule.lr_batch, which is null: set it to the "
                "frames per step that optimizer.lr is meant for, or set train.auto_scale=False to "
                "take optimizer.lr as it is"
            )
        return Recipe.derive(
            num_samples,
            cfg.dataloader.train.lanes_per_rank,
            world_size,
            cfg.schedule.epochs,
            cfg.train.max_iter,
            cfg.schedule.lr_batch if scale else None,
            step_unit(cfg),
            cfg.train.get("accumulate", 1),  # an older config.yaml lacks it
        )

    @property
    def global_batch(self) -> int:
        """Frames or windows per step, over all processes."""
        return self.lanes * self.accumulate

    @property
    def lanes(self) -> int:
        """Streams of all processes."""
        return self.lanes_per_rank * self.world_size

    @property
    def clock(self) -> Clock:
        """The clock of a training that begins with this batch."""
        return Clock(self.epoch_iters, self.max_iter, self.epochs)

    @property
    def lr_factor(self) -> float:
        """Factor on the configured learning rates."""
        return 1.0 if self.lr_batch is None else batch_lr_factor(self.global_batch, self.lr_batch)

    def describe(
        self,
        cfg: DictConfig,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        frozen: object = "nothing",
        average: WeightAverage | None = None,
    ) -> str:
        """The text that the log shows before training, with the optimiser's base learning rates."""
        # From the built objects where possible: the text shows what runs, not what was asked for.
        limit = cfg.train.max_seconds
        length = cfg.dataloader.train.get("window_length")
        entry = f"{self.unit} of {length} frames" if length else self.unit
        lines = {
            "samples": f"{self.num_samples}",
            "batch": f"{self.global_batch} {entry} = {self.lanes_per_rank} lanes "
            f"x {self.world_size} processes"
            + (f" x {self.accumulate} accumulated" if self.accumulate > 1 else ""),
            "epochs": f"{self.max_iter / self.epoch_iters:.3g} of {self.epoch_iters} iterations",
            "iterations": f"{self.max_iter}" + (f", at most {limit:g} s" if limit else ""),
            "learning rates": _rates_by_part(model, optimizer),
            "lr scale": self._describe_scale(),
            "weight decay": _sizes_by_weight_decay(optimizer),
            "frozen": f"{frozen}",
            "warm-up": f"{cfg.schedule.warmup_iters} iterations from "
            f"{cfg.schedule.warmup_factor:.3g}, cosine to {cfg.schedule.end_factor:g}",
            "precision": f"{cfg.train.precision}, gradient norm at most {cfg.train.clip_grad_norm}",
            "weight average": str(average or "none"),
            "kernels": _kernels(model, optimizer),
            "recomputed": _recomputed(model),
        }
        return "effective recipe\n" + "\n".join(f"  {k:<15}{v}" for k, v in lines.items())

    def warn_of_warmup(self, schedule: DictConfig) -> None:
        """Says so where the run ends before its warm-up."""
        if schedule.warmup_iters < self.max_iter:
            return
        asked = "train.max_iter" if self.epochs is None else f"schedule.epochs={self.epochs:g}"
        logger.warning(
            "the run has %d iterations (%s) and ends inside its warm-up: "
            "schedule.warmup_iters=%d. The learning rate starts at %.3g of optimizer.lr and never "
            "reaches it: lower schedule.warmup_iters, or train longer",
            self.max_iter,
            asked,
            schedule.warmup_iters,
            schedule.warmup_factor,
        )

    def _describe_scale(self) -> str:
        if self.lr_batch is None:
            return "x1, train.auto_scale is off"
        batches = f"{self.global_batch} {self.unit} per step, optimizer.lr is for {self.lr_batch}"
        largest = PUBLISHED_LR[-1][0]
        beyond = f"; no rate is published beyond {largest}" if self.global_batch > largest else ""
        return f"x{self.lr_factor:.4g}: {batches}{beyond}"


def step_unit(cfg: DictConfig) -> str:
    """What each lane of a configuration gives per step: "frames" or "windows"."""
    return "windows" if cfg.dataloader.train.get("window_length") else "frames"


def build_optimizer(
    cfg: DictConfig, model: nn.Module, lr_factor: float = 1.0
) -> torch.optim.Optimizer:
    """Builds an optimiser from its description.

    Args:
        cfg: the optimizer section; its `params` is called with model=model.
        model: on its device, not wrapped for distribution.
        lr_factor: factor on the learning rate of every group.
    """
    optimizer = call(cfg, params=call(cfg.params, model=model))
    # Scaled here and not in cfg: config.yaml keeps the rate that was asked for.
    for settings in (*optimizer.param_groups, optimizer.defaults):
        settings["lr"] = settings["lr"] * lr_factor
        # Tuples arrive as omegaconf lists, which a checkpoint that loads weights_only cannot hold.
        for name, value in settings.items():
            if isinstance(value, ListConfig):
                settings[name] = tuple(value)
    return optimizer


def _rates_by_part(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """The smallest and the largest learning rate of each top-level module."""
    # A group holds parameters of several modules, and a module parameters of several groups.
    part_of = {id(p): name.split(".")[0] for name, p in model.named_parameters()}
    rates: dict[str, set[float]] = defaultdict(set)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rates[part_of[id(parameter)]].add(group["lr"])
    spans = ((part, f"{min(lrs):.4g}", f"{max(lrs):.4g}") for part, lrs in rates.items())
    return ", ".join(
        f"{part} {low}" if low == high else f"{part} {low} to {high}" for part, low, high in spans
    )


def _sizes_by_weight_decay(optimizer: torch.optim.Optimizer) -> str:
    """How many parameters train with which weight decay."""
    sizes: dict[float, int] = defaultdict(int)
    for group in optimizer.param_groups:
        sizes[group["weight_decay"]] += sum(p.numel() for p in group["params"])
    return ", ".join(f"{wd:g} on {size / 1e6:.2f} M parameters" for wd, size in sizes.items())


def _kernels(model: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """The kernels of attention and of the optimiser, torch's version and the device."""
    attention = sorted({m.kernel for m in model.modules() if hasattr(m, "kernel")})
    fused = "fused " if optimizer.defaults.get("fused") else ""
    torch_on = f"torch {torch.__version__} on {next(model.parameters()).device.type}"
    kernels = ", ".join(attention) or "none"
    return f"attention {kernels}; {fused}{type(optimizer).__name__}; {torch_on}"


def _recomputed(model: nn.Module) -> str:
    """Names of the modules that use activation checkpointing."""
    names = [k for k, m in model.named_modules() if getattr(m, "use_act_checkpoint", False)]
    return f"{', '.join(names) or 'nothing'} (activation checkpointing)"
