"""Parameter groups: learning rates, weight decay, and what may not happen silently."""

from __future__ import annotations

import pytest
import torch
from tiny_detector import make_detector
from torch import nn

from streampetr_vit.solver import backbone_lr_groups, group_parameters, layer_decay_groups


def make_model() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)),
            "head": nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2)),
        }
    )


def lr_and_decay_by_name(model: nn.Module, groups: list[dict]) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def test_backbone_trains_at_a_tenth_and_everything_decays() -> None:
    model = make_model()
    groups = backbone_lr_groups(model, lr=4e-4, weight_decay=0.01)
    found = lr_and_decay_by_name(model, groups)
    assert len(groups) == 2
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, (lr, decay) in found.items():
        assert lr == pytest.approx(4e-5 if name.startswith("backbone.") else 4e-4)
        assert decay == 0.01


def test_a_quality_branch_trains_as_the_rest_of_the_head_does() -> None:
    model = make_detector(with_quality=True)
    decayed = layer_decay_groups(model, 1e-4, 0.01, num_layers=2, head_factor=3.0)
    for groups, lr in ((backbone_lr_groups(model, 4e-4, 0.01), 4e-4), (decayed, 3e-4)):
        found = lr_and_decay_by_name(model, groups)
        rates = [rate for name, (rate, _) in found.items() if "quality_branch" in name]
        assert rates == [pytest.approx(lr)] * 10


def test_one_dimensional_parameters_can_be_exempt_from_decay() -> None:
    model = make_model()
    model["head"][1].bias = nn.Parameter(torch.zeros(1, 2))  # broadcast, and a bias all the same
    groups = backbone_lr_groups(model, lr=1.0, weight_decay=0.1, decay_one_dimensional=False)
    found = lr_and_decay_by_name(model, groups)
    assert len(groups) == 4
    assert found["head.1.bias"] == (1.0, 0.0)
    assert found["head.0.weight"] == (1.0, 0.1)
    assert found["head.0.bias"] == (1.0, 0.0)
    assert found["backbone.1.weight"] == (0.1, 0.0)


def test_frozen_parameters_are_left_out() -> None:
    model = make_model()
    model["backbone"].requires_grad_(False)
    found = lr_and_decay_by_name(model, backbone_lr_groups(model, lr=1.0, weight_decay=0.0))
    assert all(name.startswith("head.") for name in found)


def test_a_parameter_with_two_names_is_listed_once() -> None:
    model = make_model()
    model["tied"] = model["head"][0]
    groups = group_parameters(model, lambda name, parameter: {"lr": 1.0})
    assert len(groups[0]["params"]) == len(list(model.parameters()))


def test_a_prefix_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"img_backbone.*top-level modules: backbone, head"):
        backbone_lr_groups(make_model(), lr=1.0, weight_decay=0.0, backbone_prefix="img_backbone.")


def test_a_model_without_trainable_parameters_is_an_error() -> None:
    with pytest.raises(ValueError, match="no parameter with requires_grad"):
        group_parameters(make_model().requires_grad_(False), lambda name, parameter: {})
