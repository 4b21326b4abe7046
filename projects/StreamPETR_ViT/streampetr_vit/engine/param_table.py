"""A recipe's parameter groups as text, without training: which parameter has which rate."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from streampetr_vit.engine.config import call, instantiate_model
from streampetr_vit.engine.freeze import Freezing
from streampetr_vit.engine.recipe import step_unit


def param_group_table(cfg: DictConfig) -> str:
    """The parameter groups of a whole configuration, one line for each parameter; reads no data.

    Returns:
        A heading, with what train.freeze freezes; for each group the name, shape, learning rate and
        weight decay of its parameters; then those that never train. Rates are before
        train.auto_scale and the schedule.
    """
    # Without memory for the weights: a ViT-L is listed in seconds.
    with torch.device("meta"):
        model = instantiate_model(cfg)
    freezing = Freezing(model, cfg.train.get("freeze") or ())  # an older config.yaml lacks it
    groups = call(cfg.optimizer.params, model=model)
    named = {id(p): (name, p) for name, p in model.named_parameters()}
    width = max(len(name) for name, _ in named.values())
    lines = [_heading(cfg, groups), f"frozen: {freezing}"]
    for index, group in enumerate(groups):
        lr, decay = (f"{_value(cfg, group, key):.4g}" for key in ("lr", "weight_decay"))
        lines.append(f"\ngroup {index}: {_size(group['params'])}")
        for parameter in group["params"]:
            name, _ = named.pop(id(parameter))  # the frozen ones remain in `named`
            shape = "x".join(map(str, parameter.shape)) or "scalar"
            lines.append(f"  {name:<{width}}  {shape:<15} lr {lr:<10} wd {decay}")
    if named:
        lines.append(f"\nnot trained: {_size([p for _, p in named.values()])}")
        lines += [f"  {name}" for name, _ in named.values()]
    return "\n".join(lines)


def _heading(cfg: DictConfig, groups: list[dict[str, Any]]) -> str:
    total = [p for group in groups for p in group["params"]]
    scale = ""
    if cfg.train.get("auto_scale", False):
        batch = f"{cfg.schedule.lr_batch} {step_unit(cfg)} per step"
        scale = f"; for {batch}, train.auto_scale adapts the rates"
    return f"{len(groups)} groups, {_size(total)}{scale}"


def _value(cfg: DictConfig, group: dict[str, Any], key: str) -> float:
    """A setting of a group; the optimiser's where the group has none of its own."""
    return group[key] if key in group else cfg.optimizer[key]


def _size(parameters: list[nn.Parameter]) -> str:
    count = sum(p.numel() for p in parameters)
    tensors = "1 tensor" if len(parameters) == 1 else f"{len(parameters)} tensors"
    return f"{tensors}, {count} parameters"
