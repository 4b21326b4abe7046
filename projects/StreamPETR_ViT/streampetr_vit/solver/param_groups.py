"""Parameter groups: which learning rate and weight decay each parameter trains with.

Two rules make them: the learning rate of a parameter follows from its name (`LrFactor`), its weight
decay from its shape. `factor_groups` applies both, and merges parameters with equal settings, so
that the optimiser works on few large groups. Recipes describe one of the functions built on it,
`backbone_lr_groups` here or `layer_decay_groups` in `layer_decay.py`.

detectron2's `get_default_optimizer_params` is not called, so that all versions give the same: v0.6
has no learning rate by name. Where it has one, its groups equal these (tests/solver).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from streampetr_vit.errors import InputError

GroupRule = Callable[[str, nn.Parameter], dict[str, float]]

# Full name of a parameter -> factor on the base learning rate; what detectron2's current
# get_default_optimizer_params takes as lr_factor_func.
LrFactor = Callable[[str], float]


def group_parameters(model: nn.Module, rule: GroupRule) -> list[dict[str, Any]]:
    """Groups the trainable parameters of a model by equal hyper-parameters.

    Args:
        model: not wrapped for distribution, so that names carry no "module." prefix.
        rule: hyper-parameters (for example {"lr": 4e-4, "weight_decay": 0.01}) of one parameter.

    Returns:
        Groups in the form `torch.optim` takes, in the order of their first parameter. A parameter
        that the model holds under two names is listed once; frozen parameters are left out.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    groups: dict[tuple[tuple[str, float], ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        settings = rule(name, parameter)
        key = tuple(sorted(settings.items()))
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
        model: the detector, not wrapped for distribution.
        lr: base learning rate.
        weight_decay: decoupled weight decay.
        lr_factor_func: times `lr`, for a parameter's name.
        decay_one_dimensional: False exempts norms and biases from weight decay: parameters of one
            dimension, and those whose name ends with ".bias".
        decay_pos_embed: False exempts the table of absolute positions, `*.pos_embed`, too.

    Returns:
        Groups for a `torch.optim` optimiser; each has its own "lr" and "weight_decay".
    """

    def rule(name: str, parameter: nn.Parameter) -> dict[str, float]:
        one_dimensional = parameter.ndim <= 1 or name.endswith(".bias")
        decays = (decay_one_dimensional or not one_dimensional) and (
            decay_pos_embed or name.rpartition(".")[2] != "pos_embed"
        )
        return {
            "lr": lr * lr_factor_func(name),
            "weight_decay": weight_decay if decays else 0.0,
        }

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
        model: the detector, not wrapped for distribution.
        lr: of every parameter outside the backbone.
        weight_decay: decoupled weight decay.
        backbone_lr_factor: times `lr` for parameters whose name starts with `backbone_prefix`
            (the feature pyramid inside the backbone included).
        backbone_prefix: start of the backbone's parameter names.
        decay_one_dimensional, decay_pos_embed: see `factor_groups`.
            Quirk: the published recipes decay all parameters.

    Returns:
        Groups for a `torch.optim` optimiser; each has its own "lr" and "weight_decay".

    Raises:
        InputError: the factor is not 1 and no trainable parameter has the prefix, so that the
            factor would silently do nothing although the backbone trains under another name.

    Source: the released StreamPETR recipes, 0.1 for the EVA-02 backbone with its pyramid.
    """
    if backbone_lr_factor != 1:
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
        setting: what needs them, for the message.
        otherwise: the other way out, for the message.

    Raises:
        InputError: there are none.
    """
    names = [name for name, _ in model.named_parameters()]
    found = [name for name in names if name.startswith(prefix)]
    if not found:
        modules = sorted({name.split(".")[0] for name in names})
        raise InputError(
            f"{setting}, but no parameter of {type(model).__name__} starts with "
            f"backbone_prefix={prefix!r} (top-level modules: {', '.join(modules)}). Correct "
            f"optimizer.params.backbone_prefix {otherwise}."
        )
    return found
