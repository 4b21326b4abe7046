"""Which weights a file holds, and what became of each of them; files of full size by name."""

from __future__ import annotations

from pathlib import Path

import foreign_files as foreign
import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor, nn

from streampetr_vit.checkpoint.conversion import Conversion, convert, describe
from streampetr_vit.checkpoint.fit import KeyReport
from streampetr_vit.checkpoint.formats import format_of, weights_of
from streampetr_vit.engine import load_config
from streampetr_vit.errors import CheckpointError, InputError
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid, SingleScale, ViT

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VIT_L_TENSORS, VIT_L_PARAMETERS = 459, 303_388_608
# size and pyramid -> tensors and parameters: the seed's with a convolution at 0.5, EVA-02's without
PYRAMIDS = {
    "eva": (32, 7_805_184),
    "streampetr": (34, 12_000_512),
    "seed": (42, 29_631_744),
}


def vit_l_with(pyramid: str | None) -> nn.Module:
    """The ViT-L of the recipes, on the meta device, with a pyramid or none, as `backbone`."""
    net = load_config(str(CONFIGS / "streampetr_eva02_l_800x320_24ep.py")).model.backbone.net
    scales = (4, 2, 1, 0.5, 0.25) if pyramid == "seed" else (4, 2, 1, 0.5)
    half = "max_pool" if pyramid == "eva" else "conv"
    with torch.device("meta"):
        vit = instantiate(net)
        if pyramid is None:
            backbone: nn.Module = SingleScale(vit)
        else:
            backbone = SimpleFeaturePyramid(vit, "last_feat", 256, scales, half_scale=half)
    return nn.ModuleDict({"backbone": backbone})


def parameters(tensors: dict[str, Tensor], prefix: str = "") -> int:
    return sum(value.numel() for name, value in tensors.items() if name.startswith(prefix))


def fit(conversion: Conversion, pyramid: str | None) -> KeyReport:
    return KeyReport.compare(conversion.tensors, vit_l_with(pyramid).state_dict())


@pytest.mark.parametrize(
    ("pyramid", "missing", "unused"),
    [
        (None, set(), 32),
        ("eva", set(), 0),
        ("streampetr", {"backbone.simfp_5.0.weight", "backbone.simfp_5.0.bias"}, 0),
        ("seed", {"backbone.simfp_5.0.weight", "backbone.simfp_5.0.bias", "simfp_6"}, 0),
    ],
)
@pytest.mark.parametrize("source", ["eva02-det", "seed-remapped"])
def test_eva_detection_of_full_size(
    source: str, pyramid: str | None, missing: set[str], unused: int
) -> None:
    shapes = foreign.eva_detection() if source == "eva02-det" else foreign.remapped()
    conversion = convert(foreign.filled(shapes))
    assert conversion.source == source
    assert parameters(conversion.tensors, "backbone.net.") == VIT_L_PARAMETERS
    assert parameters(conversion.tensors, "backbone.simfp_") == PYRAMIDS["eva"][1]
    assert len(conversion.tensors) == VIT_L_TENSORS + PYRAMIDS["eva"][0]
    counts = [len(names) for names in conversion.unused.values()]
    assert counts == ([52, 4] if source == "eva02-det" else [52])
    report = fit(conversion, pyramid)
    assert not report.wrong_shape and len(report.unused) == unused
    level_6 = [name for name in report.missing if name.startswith("backbone.simfp_6.")]
    assert len(level_6) == (8 if "simfp_6" in missing else 0)
    assert set(report.missing) - set(level_6) == missing - {"simfp_6"}


@pytest.mark.parametrize("positions", [1025, 257, 197])
def test_eva_pre_training_of_full_size(positions: int) -> None:
    conversion = convert(foreign.filled(foreign.eva_pre_training(positions=positions)))
    assert conversion.source == "eva02-cls"
    assert len(conversion.tensors) == VIT_L_TENSORS
    assert parameters(conversion.tensors) == VIT_L_PARAMETERS
    report = fit(conversion, None)
    assert len(report.matched) == VIT_L_TENSORS and not report.missing and not report.unused
    patch = ("backbone.net.patch_embed.proj.weight", (1024, 3, 14, 14), (1024, 3, 16, 16))
    table = ("backbone.net.pos_embed", (1, positions, 1024), (1, 197, 1024))
    assert conversion.resized == ([patch] if positions == 197 else [patch, table])
    assert sorted(len(names) for names in conversion.unused.values()) == [2, 5]


def test_a_ready_made_file_with_patches_of_16_is_not_resized() -> None:
    weights = foreign.filled(foreign.vit_shapes(foreign.TINY), foreign.random_values)
    conversion = convert({**weights, "mask_token": torch.zeros(1, 1, 32)})
    assert conversion.resized == []
    for name, value in weights.items():
        assert conversion.tensors[f"backbone.net.{name}"] is value


def test_resizing_is_bicubic_and_keeps_class_row_type_and_level() -> None:
    shapes = foreign.vit_shapes(foreign.TINY, patch=14, positions=257)
    weights = foreign.filled(shapes, foreign.random_values)
    weights["pos_embed"] = weights["pos_embed"].half()
    tensors = convert(weights).tensors
    patch, table = (
        tensors["backbone.net.patch_embed.proj.weight"],
        tensors["backbone.net.pos_embed"],
    )
    assert table.dtype == torch.float16 and table.shape == (1, 197, 32)
    assert torch.equal(table[:, 0], weights["pos_embed"][:, 0])
    # Row by row, column by column, at the places that align_corners=False names.
    expected = cubic_resize(weights["patch_embed.proj.weight"].double(), 16)
    assert torch.allclose(patch.double(), expected, atol=1e-5)
    grid = weights["pos_embed"][0, 1:].double().view(16, 16, 32).permute(2, 0, 1)
    resized = cubic_resize(grid, 14).permute(1, 2, 0).reshape(196, 32)
    assert torch.allclose(table[0, 1:].double(), resized, atol=1e-3)
    # No correction of the magnitude: a constant kernel keeps its values.
    flat = {**weights, "patch_embed.proj.weight": torch.full((32, 3, 14, 14), 0.25)}
    assert (
        convert(flat).tensors["backbone.net.patch_embed.proj.weight"].allclose(torch.tensor(0.25))
    )


def cubic_resize(grid: Tensor, side: int) -> Tensor:
    """Keys' cubic convolution (a = -0.75) over the last two axes, edges repeated."""
    old = grid.shape[-1]
    weights = torch.zeros(side, old, dtype=torch.float64)
    for target in range(side):
        center = (target + 0.5) * old / side - 0.5
        first = int(torch.floor(torch.tensor(center))) - 1
        for source in range(first, first + 4):
            distance = abs(center - source)
            if distance <= 1:
                value = 1.25 * distance**3 - 2.25 * distance**2 + 1
            else:
                value = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
            weights[target, min(max(source, 0), old - 1)] += value
    return weights @ grid @ weights.T


def test_a_model_sets_the_sizes_to_resize_to() -> None:
    vit = ViT(img_size=80, embed_dim=32, depth=3, num_heads=2, mlp_ratio=2.5, pretrain_img_size=80)
    model = nn.ModuleDict({"backbone": SingleScale(vit)})
    shapes = foreign.vit_shapes(foreign.TINY, patch=14, positions=257)
    conversion = convert(foreign.filled(shapes, foreign.random_values), model=model)
    assert conversion.tensors["backbone.net.pos_embed"].shape == (1, 26, 32)
    assert conversion.fit is not None and len(conversion.fit.matched) == 3 + 3 * 19


def test_repdetr3d_of_full_size_maps_by_rule() -> None:
    shapes = foreign.repdetr3d()
    assert len(shapes) == 956
    tensors = foreign.as_detector(foreign.filled(shapes))
    conversion = convert(tensors)
    assert conversion.source == "repdetr3d"
    assert parameters(conversion.tensors, "backbone.net.") == VIT_L_PARAMETERS
    assert parameters(conversion.tensors, "backbone.simfp_") == PYRAMIDS["streampetr"][1]
    head = {n: v for n, v in conversion.tensors.items() if n.startswith("head.")}
    constants = 10 + 10 + 6  # which the reference counts among its parameters
    assert parameters(head) + constants == 7_043_172
    assert conversion.settings["rotary"]["blocks"] == [16, 16, 20] * 8
    assert conversion.settings["rotary"]["pretrain"] == 16
    assert "head.decoder.layers.5.cross_attention.camera_embed.4.bias" in head
    assert sum(map(len, conversion.unused.values())) == 52 + 3 + 5 * (10 + 6)
    report = fit(conversion, "streampetr")
    assert not report.missing and not report.wrong_shape


def detector_of(recipe: str) -> nn.Module:
    """A recipe's model on the meta device, but for the head, whose ranges are compared."""
    cfg = load_config(str(CONFIGS / recipe))
    with torch.device("meta"):
        model = instantiate(cfg.model)
    model.head = instantiate(cfg.model.head)
    return model


@pytest.mark.parametrize("rays", ["", "raydn_"])
def test_repdetr3d_of_full_size_fits_its_recipes_exactly(rays: str) -> None:
    """RayDN's files have the same names and shapes: rays have no weights."""
    tensors = foreign.as_detector(foreign.filled(foreign.repdetr3d()))
    report = convert(tensors, model=detector_of(f"repdetr3d_{rays}eva02_l_800x320_24ep.py")).fit
    assert report is not None and not (report.missing or report.unused or report.wrong_shape)
    # 956 less 52 rotary tables, 3 settings and the copies of the shared branches
    assert len(report.matched) == 956 - 52 - 3 - 5 * (10 + 6)


def test_a_streampetr_model_has_no_place_for_a_repdetr3d_head() -> None:
    tensors = foreign.as_detector(foreign.filled(foreign.repdetr3d()))
    model = detector_of("streampetr_eva02_l_800x320_24ep.py")
    with pytest.raises(CheckpointError, match="RepDETR3D head.*has no such head.*--only backbone"):
        convert(tensors, model=model)
    only = convert(tensors, model=model, only="backbone")
    assert only.fit is not None and len(only.fit.matched) == VIT_L_TENSORS
    assert len(only.fit.unused) == 34  # the pyramid, which this recipe does not have


def test_the_table_accounts_for_every_tensor() -> None:
    shapes = foreign.eva_detection()
    text = describe(convert(foreign.filled(shapes)), "eva.pth")
    rows = {
        line[:60].strip().rsplit("  ", 1)[0].strip(): line.split()[-2:] for line in text.split("\n")
    }
    assert text.startswith("eva.pth: an EVA-02 detection checkpoint")
    assert rows["backbone.net"] == ["459", "303,388,608"]
    assert rows["mapped"] == ["491", "311,193,792"]
    assert rows["read"][0] == str(491 + 52 + 4)
    assert rows["unused"][0] == "56"
    assert "missing: not checked" in text
    resized = describe(convert(foreign.filled(foreign.eva_pre_training())), "cls.pt")
    assert "backbone.net.patch_embed.proj.weight 1024x3x14x14 -> 1024x3x16x16" in resized
    assert "backbone.net.pos_embed 1x1025x1024 -> 1x197x1024" in resized


def test_missing_and_unused_are_listed_by_group() -> None:
    conversion = convert(foreign.filled(foreign.eva_detection()), model=vit_l_with("streampetr"))
    lines = [line.split() for line in describe(conversion, "eva.pth").split("\n")]
    assert ["missing", "2"] in lines and ["backbone.simfp_5", "2"] in lines
    assert ["not", "in", "the", "model", "0"] in lines


def test_weights_are_found_in_every_layout() -> None:
    weights = {"module.a": torch.ones(1), "module.b": torch.zeros(2)}
    for content in (
        {"model": weights, "lr": 1},
        {"module": weights},
        {"state_dict": weights},
        weights,
    ):
        assert list(weights_of(content, "f.pth")) == ["a", "b"]
    partly = {"module.a": torch.ones(1), "head.b": torch.zeros(2)}  # a part that is called so
    assert list(weights_of(partly, "f.pth")) == ["module.a", "head.b"]
    several = {"state_dict": {"a": torch.zeros(1)}, "module": {}, "model": {"a": torch.ones(1)}}
    assert weights_of(several, "f.pth")["a"] == 1
    both = {"model": {"a": torch.ones(1)}, "ema_state": {"a": torch.zeros(1)}}
    assert weights_of(both, "f.pth")["a"] == 1
    assert weights_of(both, "f.pth", averaged=True)["a"] == 0
    with pytest.raises(CheckpointError, match=r"no averaged weights.*model, lr; leave out --ema"):
        weights_of({"model": weights, "lr": 1}, "f.pth", averaged=True)
    with pytest.raises(CheckpointError, match=r"f.pth: entry 'epoch' is a int, not a tensor"):
        weights_of({"epoch": 3, "net": {"a": torch.ones(1)}}, "f.pth")
    with pytest.raises(CheckpointError, match=r"f.pth: empty"):
        weights_of({}, "f.pth")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["conv1.weight", "fc.bias"],
            "none of the known checkpoints: its tensors are conv1.weight",
        ),
        (["img_backbone.conv1.weight", "pts_bbox_head.x"], "another backbone than EVA-02's ViT"),
        (["patch_embed.proj.weight", "blocks.0.mlp.fc1_g.weight"], "timm's names"),
        (["patch_embed.proj.weight", "blocks.0.attn.qkv.weight"], "Ti and S models"),
        (["backbone.net.blocks.0.attn.qkv.weight"], "Ti and S models"),
        (["backbone.net.blocks.0.mlp.fc1.weight"], "blocks of a plain ViT"),
        (["img_backbone.blocks.10.mlp.fc1.bias"], "blocks of a plain ViT"),
    ],
)
def test_other_files_are_named(names: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"f.pth .*{message}"):
        format_of(names, "f.pth")


def test_wrong_arguments_are_named() -> None:
    weights = foreign.filled(foreign.vit_shapes(foreign.TINY))
    with pytest.raises(InputError, match="source 'eva' must be auto, ours, eva02-det"):
        convert(weights, "eva")
    with pytest.raises(InputError, match="target 'theirs' must be one of ours, streampetr"):
        convert(weights, target="theirs")
    with pytest.raises(CheckpointError, match="is not an EVA-02 detection checkpoint.*--from auto"):
        convert(weights, "eva02-det")
    with pytest.raises(InputError, match="has the reference's names already"):
        convert(foreign.filled(foreign.remapped(foreign.TINY)), target="streampetr")
    with pytest.raises(CheckpointError, match="with a part 'neck'"):
        convert(weights, only="neck")
    with pytest.raises(ValueError, match="'stranger.weight' belongs to no part of StreamPETR"):
        convert({"pts_bbox_head.coords_d": torch.ones(1), "stranger.weight": torch.ones(1)})
