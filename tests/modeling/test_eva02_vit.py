"""The EVA-02 ViT: its size and names, anchors of the reference, and its training options."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from anchor_fill import IMAGE_INDEX, fill_parameters, filled_image, signed_hash
from detectron2.config import LazyConfig, instantiate
from small_vit import small_vit
from torch import Tensor, nn

from streampetr_vit.modeling.backbone import SingleScale, ViT
from streampetr_vit.modeling.backbone.eva02_vit import resize_positions
from streampetr_vit.modeling.backbone.layers import DropPath

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "models" / "eva02_vit_l.py"


def anchored(**changes: Any) -> SingleScale:
    backbone = SingleScale(small_vit(**changes)).eval()
    fill_parameters(backbone)
    return backbone


# --- The large model, without memory for it -------------------------------------------------------


def test_vit_l_has_the_reference_parameters_and_names() -> None:
    with torch.device("meta"):
        vit = instantiate(LazyConfig.load(str(CONFIG)).net)
    block = [
        *(f"norm{i}.{leaf}" for i in (1, 2) for leaf in ("weight", "bias")),
        *("attn.q_bias", "attn.v_bias", "attn.proj.weight", "attn.proj.bias"),
        *(f"attn.{name}_proj.weight" for name in "qkv"),
        *(
            f"mlp.{layer}.{leaf}"
            for layer in ("w1", "w2", "w3", "ffn_ln")
            for leaf in ("weight", "bias")
        ),
    ]
    expected = {f"blocks.{i}.{name}" for i in range(24) for name in block}
    expected |= {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    state = vit.state_dict()
    assert set(state) == expected
    assert len(state) == 459
    assert sum(p.numel() for p in vit.parameters()) == 303_388_608
    assert sum(p.numel() for p in vit.blocks[0].parameters()) == 12_599_976
    assert state["pos_embed"].shape == (1, 197, 1024)
    assert state["blocks.23.mlp.w3.weight"].shape == (1024, 2730)


def test_vit_l_windows_tables_norms_and_drop_path_rates() -> None:
    with torch.device("meta"):
        vit = instantiate(LazyConfig.load(str(CONFIG)).net)
    wide = [i for i, block in enumerate(vit.blocks) if block.attn.window_size == 20]
    assert wide == [2, 5, 8, 11, 14, 17, 20, 23]
    assert {block.attn.window_size for block in vit.blocks} == {16, 20}
    assert all(block.attn.rope.size == block.attn.window_size for block in vit.blocks)
    rates = [block.drop_path.rate for block in vit.blocks]
    assert rates == pytest.approx([0.3 * i / 23 for i in range(24)])
    norms = [module for module in vit.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 72 and {norm.eps for norm in norms} == {1e-6}


def test_vit_l_configurations_give_the_published_maps() -> None:
    config = LazyConfig.load(str(CONFIG))
    with torch.device("meta"):
        images = torch.empty(6, 3, 320, 800)
        one = instantiate(config.backbone).eval()(images)
        levels = instantiate(config.pyramid_backbone).eval()(images)
    assert {name: tuple(x.shape) for name, x in one.items()} == {"last_feat": (6, 1024, 20, 50)}
    assert {name: tuple(x.shape) for name, x in levels.items()} == {
        "p2": (6, 256, 80, 200),
        "p3": (6, 256, 40, 100),
        "p4": (6, 256, 20, 50),
        "p5": (6, 256, 10, 25),
    }


# --- Anchors: what StreamPETR's released EVA-02 backbone makes of `anchor_fill` -------------------


def test_the_deterministic_fill_itself() -> None:
    assert signed_hash(1, 0)[0] == pytest.approx(0.48016965, abs=1e-8)
    values = signed_hash(99840, IMAGE_INDEX)
    assert values[[0, 99839]] == pytest.approx([0.27945559, 0.59134896], abs=1e-8)


@pytest.mark.parametrize("xattn", [False, True])
@pytest.mark.parametrize(
    ("changes", "image", "mean", "mean_abs", "first", "last"),
    [
        (
            {},
            (2, 3, 80, 208),
            0.005587,
            1.371147,
            (-1.57301, 0.32080, -1.96900, -1.23427),
            (1.86114, -1.90547, 0.92871),
        ),
        (
            {"img_size": 96, "global_window_size": 0},
            (1, 3, 96, 96),
            0.016048,
            1.400649,
            (0.32485, -1.08814, -0.24880, 0.99089),
            (1.11659, 1.04910, 0.79391),
        ),
    ],
    ids=["A", "B"],
)
def test_deterministic_anchors(
    changes: dict[str, Any],
    image: tuple[int, ...],
    mean: float,
    mean_abs: float,
    first: tuple[float, ...],
    last: tuple[float, ...],
    xattn: bool,
) -> None:
    with torch.no_grad():
        out = anchored(**changes, xattn=xattn)(filled_image(*image))["last_feat"]
    assert out.shape == (image[0], 64, image[2] // 16, image[3] // 16)
    assert float(out.mean()) == pytest.approx(mean, abs=2e-6)
    assert float(out.abs().mean()) == pytest.approx(mean_abs, abs=2e-6)
    assert out[0, 0, 0, :4].tolist() == pytest.approx(first, abs=2e-5)
    assert out[-1, -1, -1, -3:].tolist() == pytest.approx(last, abs=2e-5)


def test_deterministic_gradient_anchors() -> None:
    backbone = anchored().double()
    out = backbone(filled_image(2, 3, 80, 208).double())["last_feat"]
    loss = out.square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(2.98033202, abs=1e-7)
    gradients = {name: p.grad for name, p in backbone.net.named_parameters()}
    expected = {
        "pos_embed": 7.50974e-2,
        "patch_embed.proj.weight": 1.380031,
        "blocks.0.attn.q_bias": 3.37878e-3,
        "blocks.0.attn.v_bias": 9.94292e-2,
        "blocks.2.attn.v_bias": 9.28019e-2,
        "blocks.2.attn.k_proj.weight": 1.028362e-2,
        "blocks.1.mlp.ffn_ln.weight": 1.245785e-1,
    }
    for name, norm in expected.items():
        assert float(gradients[name].norm()) == pytest.approx(norm, rel=2e-6), name
    assert not gradients["pos_embed"][:, 0].any()


# --- Positions ------------------------------------------------------------------------------------


def test_positions_that_fit_are_used_as_they_are() -> None:
    table = torch.randn(1, 10, 4)
    assert torch.equal(resize_positions(table, (3, 3), True), table[:, 1:].view(1, 3, 3, 4))
    assert torch.equal(resize_positions(table[:, 1:], (3, 3), False), table[:, 1:].view(1, 3, 3, 4))


def cubic_kernel(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.75."""
    d, a = distance.abs(), -0.75
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


def test_resized_positions_are_bicubic_between_pixel_centres() -> None:
    table = torch.zeros(8, 8)
    table[2, 4] = 1.0
    resized = resize_positions(table.view(1, 64, 1), (12, 16), has_cls_row=False)[0, :, :, 0]
    rows = (torch.arange(12.0) + 0.5) * 8 / 12 - 0.5
    columns = (torch.arange(16.0) + 0.5) * 8 / 16 - 0.5
    expected = cubic_kernel(rows - 2)[:, None] * cubic_kernel(columns - 4)
    inner = (slice(2, 10), slice(2, 14))  # at the border the edge value is repeated
    torch.testing.assert_close(resized[inner], expected[inner], atol=1e-5, rtol=0)


def test_half_precision_positions_are_resized_in_float32() -> None:
    table = torch.randn(1, 17, 8).bfloat16()
    resized = resize_positions(table, (5, 9), True)
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, resize_positions(table.float(), (5, 9), True).bfloat16())


# --- Training options -----------------------------------------------------------------------------


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    out = drop(torch.ones(4000, 2, 3, 5))
    per_image = out.flatten(1)
    assert torch.equal(per_image, per_image[:, :1].expand_as(per_image))
    assert per_image.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float(out.mean()) == pytest.approx(1.0, abs=0.03)
    assert drop(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.float32
    x = torch.randn(3, 2)
    assert drop.eval()(x) is x


def test_drop_path_draws_separately_for_attention_and_mlp() -> None:
    block = small_vit(drop_path_rate=0.5).train().blocks[2]
    x = torch.randn(64, 5, 5, 64)
    attended = block.attn(block.norm1(x))
    torch.manual_seed(3)
    out = block(x)
    untouched = (out == x).flatten(1).all(1)  # both branches dropped
    torch.manual_seed(3)
    middle = x + block.drop_path(attended)
    no_attention = (middle == x).flatten(1).all(1)
    assert 0 < int(untouched.sum()) < int(no_attention.sum()) < 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointing_repeats_drop_path_and_gives_the_same_gradients(dtype: torch.dtype) -> None:
    images = torch.randn(4, 3, 80, 112, generator=torch.Generator().manual_seed(0))
    runs = []
    for use_act_checkpoint in (False, True):
        vit = small_vit(drop_path_rate=0.5, use_act_checkpoint=use_act_checkpoint).train()
        torch.manual_seed(5)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            out = vit(images)["last_feat"]
        out.float().square().mean().backward()
        runs.append([out, *(p.grad for p in vit.parameters())])
    for plain, checkpointed in zip(*runs, strict=True):
        assert torch.equal(plain, checkpointed)


def count_block_calls(vit: ViT, backward: bool) -> int:
    calls: list[int] = []
    vit.blocks[1].register_forward_pre_hook(lambda module, inputs: calls.append(1))
    out = vit(torch.randn(1, 3, 80, 80))["last_feat"]
    if backward:
        out.sum().backward()
    return len(calls)


def test_checkpointing_recomputes_in_training_only() -> None:
    assert count_block_calls(small_vit(use_act_checkpoint=True).train(), backward=True) == 2
    assert count_block_calls(small_vit(use_act_checkpoint=True).eval(), backward=True) == 1
    assert count_block_calls(small_vit(use_act_checkpoint=False).train(), backward=True) == 1


def test_every_parameter_gets_a_gradient() -> None:
    vit = small_vit(subln=True, residual_block_indexes=[1]).train()
    nn.init.ones_(vit.blocks[1].residual.norm3.weight)
    vit(torch.randn(1, 3, 80, 96))["last_feat"].square().sum().backward()
    assert [name for name, p in vit.named_parameters() if p.grad is None] == []


def test_a_new_residual_block_is_the_identity() -> None:
    plain, with_residual = small_vit().eval(), small_vit(residual_block_indexes=[1]).eval()
    with_residual.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(1, 3, 80, 80)
    assert torch.equal(plain(images)["last_feat"], with_residual(images)["last_feat"])


def test_images_of_a_batch_do_not_see_each_other() -> None:
    vit = anchored().net
    images = filled_image(3, 3, 80, 112)
    together = vit(images)["last_feat"]
    for index in range(3):
        alone = vit(images[index : index + 1])["last_feat"]
        torch.testing.assert_close(together[index : index + 1], alone, atol=2e-5, rtol=1e-5)


def test_autocast_stays_close_and_keeps_the_residual_stream_in_float32() -> None:
    vit = anchored().net
    images = filled_image(1, 3, 80, 112)
    with torch.no_grad():
        exact = vit(images)["last_feat"]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = vit(images)["last_feat"]
    assert rounded.dtype == torch.float32
    error = (rounded - exact).norm() / exact.norm()
    assert 1e-5 < float(error) < 3e-2


# --- Windows, tables and refusals -----------------------------------------------------------------


def test_weights_move_between_image_sizes() -> None:
    narrow = small_vit()
    wide = small_vit(img_size=96, global_window_size=6)
    assert wide.load_state_dict(narrow.state_dict()).missing_keys == []
    assert wide.eval()(torch.randn(1, 3, 96, 160))["last_feat"].shape == (1, 64, 6, 10)


def test_without_rope_the_whole_map_may_have_any_size() -> None:
    vit = small_vit(rope=False, global_window_size=0).eval()
    assert vit(torch.randn(1, 3, 48, 112))["last_feat"].shape == (1, 64, 3, 7)
    assert all(block.attn.rope is None for block in vit.blocks)


def test_coinciding_windows_are_warned_of_and_others_not() -> None:
    with pytest.warns(UserWarning, match="global_window_size=4 equals window_size"):
        small_vit(img_size=64, global_window_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_vit()
        small_vit(window_block_indexes=[], window_size=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"global_window_size": 4, "window_size": 2},
            "global_window_size=4 must equal img_size // patch_size = 5",
        ),
        (
            {"intp_freq": False},
            r"window_size=4 must equal pt_hw_seq_len \(because intp_freq is False\) = 16",
        ),
        (
            {"intp_freq": False, "pt_hw_seq_len": 4},
            "global_window_size=5 must equal pt_hw_seq_len .* = 4",
        ),
        ({"global_window_size": -1}, "global_window_size=-1 must be 0"),
        ({"window_size": 0}, "window_size=0 must be positive.*names 2 blocks"),
        ({"window_block_indexes": [0, 3]}, r"window_block_indexes names \[3\].*allows 0 to 2"),
        ({"residual_block_indexes": [-1]}, r"residual_block_indexes names \[-1\]"),
        ({"num_heads": 3}, "num_heads=3 must divide embed_dim=64"),
        ({"num_heads": 32}, "head_dim=2 must be a positive multiple of 4"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0 must be at least 0 and less than 1"),
    ],
)
def test_contradictory_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_vit(**changes)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 80, 100), "width 100 must be multiples of patch_size=16"),
        (torch.zeros(1, 3, 90, 96), "image height 90"),
        (torch.zeros(1, 4, 80, 96), r"\(1, 4, 80, 96\) must be \(B, 3, height, width\)"),
        (torch.zeros(2, 6, 3, 80, 96), r"must be \(B, 3, height, width\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_vit()(images)


def test_whole_map_attention_refuses_maps_without_a_table() -> None:
    vit = small_vit(global_window_size=0).eval()
    assert vit(torch.randn(1, 3, 80, 80))["last_feat"].shape == (1, 64, 5, 5)
    with pytest.raises(ValueError, match=r"5x7 tokens does not fit.*5x5.*global_window_size"):
        vit(torch.randn(1, 3, 80, 112))
