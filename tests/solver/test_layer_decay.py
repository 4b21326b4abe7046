"""Layer-wise decay: every parameter of the ViT-L detector against the published table."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from streampetr_vit.engine.config import instantiate_model, load_config
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid, ViT
from streampetr_vit.solver import LayerDecay, layer_decay_groups

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "projects" / "StreamPETR_ViT" / "docs" / "recipes.md"

# Factors of layers 0 to 25 as the specification has them, with 1 for the pyramid.
FACTORS = (
    (0.071790, 0.079766, 0.088629, 0.098477, 0.109419, 0.121577, 0.135085, 0.150095, 0.166772)
    + (0.185302, 0.205891, 0.228768, 0.254187, 0.282430, 0.313811, 0.348678, 0.387420, 0.430467)
    + (0.478297, 0.531441, 0.590490, 0.656100, 0.729000, 0.810000, 0.900000, 1.0)
)
HEAD = 4.0
LR, WEIGHT_DECAY = 1e-4, 1e-7
Settings = dict[str, tuple[float, float]]


def settings_by_name(model: nn.Module, groups: list[dict[str, Any]]) -> Settings:
    """(lr, weight decay) of every parameter; fails where one is listed twice or not at all."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    listed = [names[id(p)] for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(names.values())
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }


def layer_of(name: str) -> int | None:
    """The layer by the letter of our parameter names, apart from the code under test."""
    if not name.startswith("backbone."):
        return None
    if name == "backbone.net.pos_embed" or name.startswith("backbone.net.patch_embed."):
        return 0
    if name.startswith("backbone.net.blocks."):
        return int(name.split(".")[3]) + 1
    assert name.startswith("backbone.simfp_")
    return 25


@pytest.fixture(scope="module")
def vit_l() -> nn.Module:
    """The published detector, without memory for its weights."""
    recipe = ROOT / "configs" / "streampetr_eva02_l_800x320_24ep_layer_decay.py"
    with torch.device("meta"):
        return instantiate_model(load_config(str(recipe)))


@pytest.fixture(scope="module")
def vit_l_with_pyramid(vit_l: nn.Module) -> nn.Module:
    """The ViT-L inside the five-level pyramid, and something that stands for the heads."""
    models = ROOT / "configs" / "models" / "eva02_vit_l.py"
    described = LazyConfig.load(str(models)).pyramid_backbone
    described.scale_factors = [4, 2, 1, 0.5, 0.25]
    with torch.device("meta"):
        return nn.ModuleDict({"backbone": instantiate(described), "head": nn.Linear(256, 10)})


def small_detector() -> nn.ModuleDict:
    """Three blocks with a pyramid, and a head with every kind of one-dimensional parameter."""
    net = ViT(
        img_size=64,
        embed_dim=32,
        depth=3,
        num_heads=2,
        window_size=2,
        global_window_size=4,
        window_block_indexes=[0],
        residual_block_indexes=[2],
    )
    backbone = SimpleFeaturePyramid(
        net=net, in_feature="last_feat", out_channels=8, scale_factors=[4, 2, 1, 0.5, 0.25]
    )
    head = nn.Sequential(nn.MultiheadAttention(8, 2), nn.GroupNorm(2, 8), nn.LayerNorm(8))
    return nn.ModuleDict({"backbone": backbone, "head": head})


@pytest.mark.parametrize("layer", range(26))
def test_factor_of_each_layer(layer: int) -> None:
    factor = LayerDecay(pyramid_factor=1.0)
    block = f"backbone.net.blocks.{layer - 1}."
    names = [block + leaf for leaf in ("attn.q_bias", "norm1.weight", "mlp.w3.weight")]
    if layer == 0:
        names = ["backbone.net.pos_embed", "backbone.net.patch_embed.proj.weight"]
    if layer == 25:
        names = ["backbone.simfp_2.4.norm.weight", "backbone.simfp_6.0.bias"]
    for name in names:
        assert factor.layer(name) == layer_of(name) == layer
        assert factor(name) == pytest.approx(FACTORS[layer], abs=5e-7)
    assert factor(names[0]) == pytest.approx(0.9 ** (25 - layer), rel=1e-12)


def test_the_documented_table_is_this_one() -> None:
    rows = [[cell.strip() for cell in row.split("|")] for row in DOCS.read_text().splitlines()]
    # Two layers to a row: | id | what | factor | lr | id | what | factor | lr |
    cells = [row[i : i + 4] for row in rows if len(row) == 10 for i in (1, 5)]
    documented = {int(cell[0]): (cell[2], cell[3]) for cell in cells if cell[0].isdigit()}
    assert documented == {
        layer: (f"{factor:.6f}", f"{1e-4 * 0.9 ** (25 - layer):.3e}")
        for layer, factor in enumerate(FACTORS)
    }


def test_every_parameter_of_the_published_detector(vit_l: nn.Module) -> None:
    groups = layer_decay_groups(vit_l, LR, WEIGHT_DECAY)
    assert len(groups) == 52  # 25 layers and the heads, each with and without weight decay
    found = settings_by_name(vit_l, groups)
    layers = {layer_of(name) for name in found}
    assert layers == {None, *range(25)}  # without a pyramid layer 25 is empty
    for name, parameter in vit_l.named_parameters():
        layer = layer_of(name)
        lr = LR * (HEAD if layer is None else FACTORS[layer])
        assert found[name][0] == pytest.approx(lr, rel=1e-5), name
        assert found[name][1] == (WEIGHT_DECAY if parameter.ndim > 1 else 0.0), name
    assert found["backbone.net.pos_embed"][1] == WEIGHT_DECAY
    blocks = [FACTORS[i + 1] for i in range(24)]
    assert sum(blocks) / 24 == pytest.approx(0.345, abs=5e-4)


@pytest.mark.parametrize(("pyramid_factor", "expected"), [(None, HEAD), (1.0, 1.0), (0.3, 0.3)])
def test_the_pyramid_has_a_factor_of_its_own(
    vit_l_with_pyramid: nn.Module, pyramid_factor: float | None, expected: float
) -> None:
    groups = layer_decay_groups(vit_l_with_pyramid, LR, WEIGHT_DECAY, pyramid_factor=pyramid_factor)
    assert len(groups) == (52 if expected == HEAD else 54)
    found = settings_by_name(vit_l_with_pyramid, groups)
    pyramid = {name: value for name, value in found.items() if layer_of(name) == 25}
    assert {name.split(".")[1] for name in pyramid} == {f"simfp_{i}" for i in range(2, 7)}
    assert {lr for lr, _ in pyramid.values()} == {LR * expected}
    assert found["backbone.simfp_2.4.norm.weight"][1] == 0.0
    assert found["backbone.net.blocks.0.attn.k_proj.weight"][0] == pytest.approx(7.977e-6, rel=1e-4)


def test_the_position_table_can_be_exempt_and_norms_can_decay() -> None:
    model = small_detector()
    groups = layer_decay_groups(
        model, LR, 0.1, num_layers=3, decay_one_dimensional=True, decay_pos_embed=False
    )
    spared = {name for name, (_, decay) in settings_by_name(model, groups).items() if not decay}
    assert spared == {"backbone.net.pos_embed"}


def test_bottlenecks_behind_a_block_are_new_layers() -> None:
    factor = LayerDecay(num_layers=3, pyramid_factor=2.0)
    names = [name for name, _ in small_detector().named_parameters()]
    residual = [name for name in names if ".residual." in name]
    assert residual and all(factor(name) == 2.0 for name in residual)


def test_detectron2_gives_the_same_groups() -> None:
    """Its own function, told everything that it can be told.

    It knows norms, but no other one-dimensional parameters: it gets the names of those. The
    current version also takes the factor, and all must agree; v0.6 has one rate for all.
    """
    model = small_detector()
    factor = LayerDecay(num_layers=3)
    bare = {
        name.rpartition(".")[2]
        for name, p in model.named_parameters()
        if p.ndim == 1 and not name.endswith("weight")
    }
    assert bare == {"bias", "in_proj_bias", "q_bias", "v_bias"}
    by_name = "lr_factor_func" in inspect.signature(get_default_optimizer_params).parameters
    theirs = get_default_optimizer_params(
        model,
        base_lr=LR,
        weight_decay=WEIGHT_DECAY,
        weight_decay_norm=0.0,
        overrides={leaf: {"weight_decay": 0.0} for leaf in bare},
        **({"lr_factor_func": factor} if by_name else {}),
    )
    expected = settings_by_name(model, theirs)
    groups = layer_decay_groups(model, LR, WEIGHT_DECAY, num_layers=3)
    ours = settings_by_name(model, groups)
    if by_name:
        assert ours == expected
        assert len(theirs) == len(groups)
    else:
        assert {n: (LR, decay) for n, (_, decay) in ours.items()} == expected


def test_names_as_detectron2_passes_them_for_parameters_of_the_root() -> None:
    assert LayerDecay()(".temperature") == LayerDecay()("temperature") == HEAD


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"num_layers=24, but the backbone of ModuleDict has 3 blocks.*num_layers to the depth",
        ),
        ({"num_layers": 2}, "num_layers=2, but the backbone of ModuleDict has 3 blocks"),
        ({"num_layers": 3, "backbone_prefix": "vit."}, "layer-wise decay, but no parameter"),
        ({"num_layers": 0}, "params.num_layers=0: set it to the number of the ViT's blocks"),
        ({"decay_rate": 1.5}, "params.decay_rate=1.5: must be above 0 and at most 1"),
        ({"head_factor": -1.0}, "params.head_factor=-1.0: set it to 0 or more"),
        ({"pyramid_factor": -1.0}, "params.pyramid_factor=-1.0: set it to 0 or more"),
    ],
)
def test_wrong_settings_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer_decay_groups(small_detector(), LR, WEIGHT_DECAY, **options)


def test_a_block_beyond_the_depth_is_an_error() -> None:
    with pytest.raises(ValueError, match="is in block 12, but num_layers=12"):
        LayerDecay(num_layers=12)("backbone.net.blocks.12.norm1.weight")


def test_a_backbone_without_blocks_is_an_error() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"has 0 blocks.*configs/common/optim.py"):
        layer_decay_groups(model, LR, WEIGHT_DECAY)
