"""Parameter groups: which learning rate and weight decay each parameter trains with.

A rule maps (name, parameter) to hyper-parameters; `group_parameters` applies it to a model and
merges parameters with equal hyper-parameters, so that the optimiser works on few large groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from streampetr_vit.errors import InputError

GroupRule = Callable[[str, nn.Parameter], dict[str, float]]


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


def backbone_lr_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    backbone_lr_factor: float = 0.1,
    backbone_prefix: str = "backbone.",
    decay_one_dimensional: bool = True,
) -> list[dict[str, Any]]:
    """One learning rate for the pre-trained backbone, another for everything else.

    Args:
        model: the detector, not wrapped for distribution.
        lr: of every parameter outside the backbone.
        weight_decay: decoupled weight decay.
        backbone_lr_factor: times `lr` for parameters whose name starts with `backbone_prefix`
            (the feature pyramid inside the backbone included).
        backbone_prefix: start of the backbone's parameter names.
        decay_one_dimensional: False exempts norms and biases (1-D parameters) from weight decay.
            Quirk: the published recipes decay all parameters.

    Returns:
        Groups for a `torch.optim` optimiser; each has its own "lr" and "weight_decay".

    Raises:
        InputError: the factor is not 1 and no trainable parameter has the prefix, so that the
            factor would silently do nothing although the backbone trains under another name.

    Source: the released StreamPETR recipes, 0.1 for the EVA-02 backbone with its pyramid.
    """
    names = [name for name, _ in model.named_parameters()]
    if backbone_lr_factor != 1 and not any(name.startswith(backbone_prefix) for name in names):
        modules = sorted({name.split(".")[0] for name in names})
        raise InputError(
            f"backbone_lr_factor={backbone_lr_factor}, but no parameter of "
            f"{type(model).__name__} starts with backbone_prefix={backbone_prefix!r} "
            f"(top-level modules: {', '.join(modules)}). Correct optimizer.params.backbone_prefix "
            "or set optimizer.params.backbone_lr_factor=1."
        )

    def rule(name: str, parameter: nn.Parameter) -> dict[str, float]:
        factor = backbone_lr_factor if name.startswith(backbone_prefix) else 1.0
        decays = decay_one_dimensional or parameter.ndim > 1
        return {"lr": lr * factor, "weight_decay": weight_decay if decays else 0.0}

    return group_parameters(model, rule)
