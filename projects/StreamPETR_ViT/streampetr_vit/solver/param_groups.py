"""Parameter groups: the learning rate and weight decay of each parameter.

The learning rate follows from a parameter's name, the weight decay from its shape: `factor_groups`
applies both rules. Recipes use one of the functions built on it, `backbone_lr_groups` here or
`layer_decay_groups` in `layer_decay.py`. All take a detector that is not wrapped for distribution,
so that names carry no "module." prefix, and give groups for a `torch.optim` optimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from streampetr_vit.errors import InputError

GroupRule = Callable[[str, nn.Parameter], dict[str, float]]

# Full name of a parameter -> factor on the base learning rate. The same type as lr_factor_func of
# get_default_optimizer_params on detectron2's main branch.
LrFactor = Callable[[str], float]


def group_parameters(model: nn.Module, rule: GroupRule) -> list[dict[str, Any]]:
    """Groups the trainable parameters of a model by equal hyper-parameters.

    Args:
        model: the detector.
        rule: gives the settings of one parameter, such as {"lr": 4e-4, "weight_decay": 0.01}.

    Returns:
        Groups in the order of their first parameter.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    groups: dict[tuple[tuple[str, float], ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():  # lists a shared parameter once
        if not parameter.requires_grad:
            continue
        # Few large groups: a fused optimiser launches its kernels once for each.
        settings = rule(name, parameter)
        key = tuple(sorted(settings.items()))  # a dict cannot be a key
        groups.setdefault(key, {"params": [], **settings})["params"].append(parameter)
    if not groups:
        raise ValueError(f"{type(model).__name__} has no parameter with requires_grad=True")
    return list(groups.values())


def factor_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    lr_factor_func: LrFactor,
    decay_one_dimensional: bool = True,
    decay_pos_embed: bool = True,
) -> list[dict[str, Any]]:
    """Groups with a learning rate by name and a weight decay by shape.

    Args:
        model: the detector.
        lr: base learning rate.
        weight_decay: decoupled weight decay.
        lr_factor_func: factor on `lr` for a parameter's name.
        decay_one_dimensional: False exempts norms and biases from weight decay: parameters of one
            dimension, and those whose name ends with ".bias".
        decay_pos_embed: False exempts the table of absolute positions, `*.pos_embed`, too.

    Returns:
        Groups with "lr" and "weight_decay".
    """
    # Not detectron2's get_default_optimizer_params: v0.6 has no learning rate by name. Where it has
    # one, its groups equal these (tests/solver).

    def rule(name: str, parameter: nn.Parameter) -> dict[str, float]:
        # A bias may have more than one dimension.
        one_dimensional = parameter.ndim <= 1 or name.endswith(".bias")
        decays = (decay_one_dimensional or not one_dimensional) and (
            decay_pos_embed or name.rpartition(".")[2] != "pos_embed"
        )
        return {"lr": lr * lr_factor_func(name), "weight_decay": weight_decay if decays else 0.0}

    return group_parameters(model, rule)


def backbone_lr_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    backbone_lr_factor: float = 0.1,
    backbone_prefix: str = "backbone.",
    decay_one_dimensional: bool = True,
    decay_pos_embed: bool = True,
) -> list[dict[str, Any]]:
    """One learning rate for the pre-trained backbone, another for everything else.

    Args:
        backbone_lr_factor: factor on `lr` inside the backbone, its pyramid included.
        backbone_prefix: start of the backbone's parameter names.
        model, lr, weight_decay, decay_one_dimensional, decay_pos_embed: see `factor_groups`.
            Quirk: the published recipes decay all parameters.

    Raises:
        InputError: the factor is not 1 and no parameter has the prefix.

    Source: the released StreamPETR recipes, 0.1 for the EVA-02 backbone with its pyramid.
    """
    if backbone_lr_factor != 1:
        # With a wrong prefix the backbone would train at the full rate without an error.
        names_below(
            model,
            backbone_prefix,
            f"backbone_lr_factor={backbone_lr_factor}",
            "or set optimizer.params.backbone_lr_factor=1",
        )

    def factor(name: str) -> float:
        return backbone_lr_factor if name.startswith(backbone_prefix) else 1.0

    return factor_groups(model, lr, weight_decay, factor, decay_one_dimensional, decay_pos_embed)


def names_below(model: nn.Module, prefix: str, setting: str, otherwise: str) -> list[str]:
    """Names of the parameters that start with a prefix.

    Args:
        model: the detector.
        prefix: start of the backbone's parameter names.
        setting, otherwise: for the error: what needs such names, and a second fix.

    Raises:
        InputError: no parameter has the prefix.
    """
    names = [name for name, _ in model.named_parameters()]  # frozen ones too: they have the prefix
    found = [name for name in names if name.startswith(prefix)]
    if not found:
        modules = sorted({name.split(".")[0] for name in names})
        raise InputError(
            f"{setting}, but no parameter of {type(model).__name__} starts with "
            f"backbone_prefix={prefix!r} (top-level modules: {', '.join(modules)}). Correct "
            f"optimizer.params.backbone_prefix, {otherwise}"
        )
    return found
