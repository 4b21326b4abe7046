"""The neck, against sums that one can do by hand."""

from __future__ import annotations

import pytest
import torch

from streampetr_vit.checkpoint.adapters import neck_from_streampetr
from streampetr_vit.modeling.backbone import CPFPN


def averaging_neck(channels: list[int], names: list[str]) -> CPFPN:
    """Laterals sum their channels, plus 1; the output convolution sums 3 x 3 cells, plus 10."""
    neck = CPFPN(channels, 1, names)
    for lateral in neck.lateral_convs:
        torch.nn.init.ones_(lateral.weight)
        torch.nn.init.ones_(lateral.bias)
    torch.nn.init.ones_(neck.fpn_convs[0].weight)
    torch.nn.init.constant_(neck.fpn_convs[0].bias, 10.0)
    return neck


def test_one_level() -> None:
    image = torch.tensor([[1.0, 2], [3, 4]]).expand(1, 3, 2, 2)
    out = averaging_neck([3], ["c4"])({"c4": image, "unused": image})
    # Laterals 4, 7, 10, 13; every 3 x 3 window sees all four cells.
    assert list(out) == ["c4"]
    assert out["c4"].tolist() == [[[[44.0, 44], [44, 44]]]]


def test_two_levels_of_odd_size() -> None:
    fine, coarse = torch.zeros(1, 1, 1, 5), torch.tensor([[[[1.0, 2, 3]]]])
    out = averaging_neck([1, 1], ["c4", "c5"])({"c5": coarse, "c4": fine})
    # Coarse laterals 2, 3, 4; nearest to five columns 2 2 3 3 4 (floor of 3/5 of the column), plus
    # the fine laterals of 1: 3 3 4 4 5; then sums of three neighbours, plus 10.
    assert list(out) == ["c4", "c5"]
    assert out["c5"].tolist() == [[[[2.0, 3, 4]]]]
    assert out["c4"].tolist() == [[[[16.0, 20, 21, 23, 19]]]]


def test_names_and_initial_weights() -> None:
    torch.manual_seed(0)
    neck = CPFPN([6, 12], 8, ["c4", "c5"])
    shapes = {name: tuple(value.shape) for name, value in neck.state_dict().items()}
    assert shapes == {
        "lateral_convs.0.weight": (8, 6, 1, 1),
        "lateral_convs.0.bias": (8,),
        "lateral_convs.1.weight": (8, 12, 1, 1),
        "lateral_convs.1.bias": (8,),
        "fpn_convs.0.weight": (8, 8, 3, 3),
        "fpn_convs.0.bias": (8,),
    }
    bound = (6 / (8 * 9 + 8 * 9)) ** 0.5  # Xavier: 9 cells, 8 channels in and out
    assert 0.95 * bound < neck.fpn_convs[0].weight.abs().max().item() <= bound
    assert not any(conv.bias.any() for conv in (*neck.lateral_convs, *neck.fpn_convs))


def test_released_weights_find_their_place() -> None:
    neck = CPFPN([6, 12], 8, ["c4", "c5"])
    released = {
        "img_neck." + name.replace(".weight", ".conv.weight").replace(".bias", ".conv.bias"): value
        for name, value in neck.state_dict().items()
    }
    renamed = neck_from_streampetr(released | {"img_backbone.x": torch.zeros(1)}, "img_neck.")
    assert renamed.keys() == neck.state_dict().keys()


def test_wrong_maps_are_named() -> None:
    with pytest.raises(ValueError, match=r"in_channels \[6\] and in_features \['c4', 'c5'\]"):
        CPFPN([6], 8, ["c4", "c5"])
    with pytest.raises(ValueError, match="at least one"):
        CPFPN([], 8, [])
    with pytest.raises(ValueError, match=r"\['c5'\], but the backbone gives \['c4'\]"):
        CPFPN([6, 12], 8, ["c4", "c5"])({"c4": torch.zeros(1, 6, 4, 4)})
