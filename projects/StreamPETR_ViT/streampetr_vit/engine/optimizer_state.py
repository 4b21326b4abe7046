"""The state of an optimiser in a checkpoint, for the optimiser of this run."""

from __future__ import annotations

from typing import Any

import torch

from streampetr_vit.errors import CheckpointError, InputError

_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # shaped as their tensor


def with_settings_of(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's saved state with the settings of this run's groups.

    Raises:
        InputError: the groups differ from the checkpoint's.
        CheckpointError: moments that are not those of the groups' tensors.
    """
    # Before it is loaded and not after: torch puts the state on the CPU or the device according to
    # the settings (fused).
    old_groups, groups = saved["param_groups"], optimizer.param_groups
    sizes, ours = ([len(group["params"]) for group in g] for g in (old_groups, groups))
    if sizes != ours:
        raise InputError(
            "cannot resume: the checkpoint's optimiser has other parameter groups than this run "
            f"({sum(sizes)} tensors in {len(sizes)} groups, here {sum(ours)} in {len(ours)}). "
            "Resume with the model, train.freeze and optimizer.params of the checkpoint; or start "
            "a new training from its weights, with train.init_checkpoint and without --resume"
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
