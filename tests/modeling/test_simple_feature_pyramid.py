"""The feature pyramid around the ViT, and the wrapper without one."""

from __future__ import annotations

import pytest
import torch
from anchor_fill import fill_parameters, filled_image
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn

from streampetr_vit.modeling.backbone import SimpleFeaturePyramid, SingleScale, ViT
from streampetr_vit.modeling.backbone.layers import LayerNorm2d


class OneMap(Backbone):
    """Stands for the ViT where only shapes matter: a map of stride 16 from a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 16, 16)
        self._out_features = ["last_feat"]
        self._out_feature_channels = {"last_feat": channels}
        self._out_feature_strides = {"last_feat": 16}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"last_feat": self.proj(x)}


def pyramid(channels: int = 8, **options: object) -> SimpleFeaturePyramid:
    arguments = {"in_feature": "last_feat", "out_channels": 4, "scale_factors": [4, 2, 1, 0.5]}
    return SimpleFeaturePyramid(net=OneMap(channels), **{**arguments, **options})


def small_vit() -> ViT:
    return ViT(
        img_size=80,
        embed_dim=64,
        depth=3,
        num_heads=2,
        window_size=4,
        global_window_size=5,
        window_block_indexes=[0, 1],
        xattn=False,
    )


def test_deterministic_anchors_of_a_five_level_pyramid() -> None:
    backbone = SimpleFeaturePyramid(
        net=small_vit(),
        in_feature="last_feat",
        out_channels=32,
        scale_factors=[4, 2, 1, 0.5, 0.25],
    ).eval()
    fill_parameters(backbone)
    with torch.no_grad():
        levels = backbone(filled_image(2, 3, 80, 208))
    expected = {  # Source: StreamPETR's released EVA-02 backbone, on `anchor_fill`
        "p2": ((20, 52), 0.046577, 0.814646, -0.00463, (-1.02012, -0.72415, 0.12291)),
        "p3": ((10, 26), -0.014331, 0.849168, 1.39512, (-1.51773, 1.18295, 0.49012)),
        "p4": ((5, 13), -0.026937, 0.795328, 1.57958, (-1.75983, 0.22456, -0.77345)),
        "p5": ((2, 6), 0.016788, 0.831335, 0.28623, (0.45567, -0.04273, 0.08495)),
        "p6": ((1, 3), 0.035993, 0.816528, -1.76060, (-0.87243, -0.77294, 1.26385)),
    }
    assert list(levels) == list(expected)
    for name, (size, mean, mean_abs, first, last) in expected.items():
        level = levels[name]
        assert level.shape == (2, 32, *size)
        assert float(level.mean()) == pytest.approx(mean, abs=2e-6)
        assert float(level.abs().mean()) == pytest.approx(mean_abs, abs=2e-6)
        assert float(level[0, 0, 0, 0]) == pytest.approx(first, abs=2e-5)
        assert level[-1, -1, -1, -3:].tolist() == pytest.approx(last, abs=2e-5)


@pytest.mark.parametrize(
    ("image_size", "sizes"),
    [
        ((320, 800), [(80, 200), (40, 100), (20, 50), (10, 25), (5, 12)]),
        ((800, 1600), [(200, 400), (100, 200), (50, 100), (25, 50), (12, 25)]),
    ],
)
def test_level_sizes(image_size: tuple[int, int], sizes: list[tuple[int, int]]) -> None:
    with torch.device("meta"):
        levels = pyramid(scale_factors=[4, 2, 1, 0.5, 0.25])(torch.empty(6, 3, *image_size))
    assert [tuple(level.shape) for level in levels.values()] == [(6, 4, *size) for size in sizes]


@pytest.mark.parametrize(
    ("options", "count"),
    [  # Source: the released StreamPETR (two) and EVA-02 (max_pool) pyramids
        ({"half_scale": "conv"}, 12_000_512),
        ({"half_scale": "conv", "scale_factors": [4, 2, 1, 0.5, 0.25]}, 29_631_744),
        ({"half_scale": "max_pool"}, 7_805_184),
    ],
)
def test_parameter_counts_at_full_width(options: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        backbone = pyramid(channels=1024, out_channels=256, **options)
    parameters = backbone.named_parameters()
    assert sum(p.numel() for name, p in parameters if name.startswith("simfp_")) == count


def test_state_dict_names() -> None:
    norm = ["weight", "norm.weight", "norm.bias"]
    both = ["weight", "bias"]
    expected = {
        *(f"simfp_2.{i}.{leaf}" for i in (0, 1, 3) for leaf in both),
        *(f"simfp_2.{i}.{leaf}" for i in (4, 5) for leaf in norm),
        *(f"simfp_3.0.{leaf}" for leaf in both),
        *(f"simfp_3.{i}.{leaf}" for i in (1, 2) for leaf in norm),
        *(f"simfp_4.{i}.{leaf}" for i in (0, 1) for leaf in norm),
        *(f"simfp_5.{i}.{leaf}" for i in (1, 2) for leaf in norm),
        "net.proj.weight",
        "net.proj.bias",
    }
    assert set(pyramid(half_scale="max_pool").state_dict()) == expected
    learned = {"simfp_5.0.weight", "simfp_5.0.bias"}
    assert set(pyramid(half_scale="conv").state_dict()) == expected | learned


def test_top_block_appends_subsampled_levels() -> None:
    backbone = pyramid(top_block=LastLevelMaxPool())
    levels = backbone(torch.randn(1, 3, 96, 160))
    assert list(levels) == ["p2", "p3", "p4", "p5", "p6"]
    assert torch.equal(levels["p6"], levels["p5"][:, :, ::2, ::2])
    strides = {name: shape.stride for name, shape in backbone.output_shape().items()}
    assert strides == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}


def test_each_level_of_a_top_block_doubles_the_stride() -> None:
    top_block = LastLevelMaxPool()
    top_block.num_levels = 3
    strides = [shape.stride for shape in pyramid(top_block=top_block).output_shape().values()]
    assert strides == [4, 8, 16, 32, 64, 128, 256]


def test_levels_keep_the_order_of_their_scales_and_may_be_few() -> None:
    backbone = pyramid(scale_factors=[0.5, 2])
    assert list(backbone(torch.randn(1, 3, 64, 64))) == ["p5", "p3"]
    assert backbone.size_divisibility == 32


def test_size_divisibility_ignores_the_level_that_floors() -> None:
    backbone = pyramid(scale_factors=[1, 0.25], square_pad=640)
    assert backbone.size_divisibility == 32
    assert backbone.padding_constraints == {"size_divisibility": 32, "square_size": 640}


def test_convolutions_have_a_bias_only_without_a_norm() -> None:
    names = set(pyramid(scale_factors=[1], norm="").state_dict())
    assert {"simfp_4.0.bias", "simfp_4.1.bias"} <= names
    assert not any("norm" in name for name in names)
    pyramid(scale_factors=[4], norm="")(torch.randn(1, 3, 32, 32))


def test_layer_norm_2d_is_the_formula() -> None:
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64) * 3 + 1
    norm = LayerNorm2d(5).double()
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.normal_(norm.bias)
    scaled = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    expected = norm.weight.view(1, 5, 1, 1) * scaled + norm.bias.view(1, 5, 1, 1)
    torch.testing.assert_close(norm(x), expected)


def test_single_scale_keeps_the_vit_under_net() -> None:
    vit = small_vit().eval()
    backbone = SingleScale(vit).eval()
    assert set(backbone.state_dict()) == {f"net.{name}" for name in vit.state_dict()}
    assert backbone.size_divisibility == 16
    shape = backbone.output_shape()["last_feat"]
    assert (shape.channels, shape.stride) == (64, 16)
    images = torch.randn(1, 3, 80, 96)
    assert torch.equal(backbone(images)["last_feat"], vit(images)["last_feat"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_feature": "res5"}, r"in_feature='res5' is not among \['last_feat'\]"),
        ({"half_scale": "mean"}, "half_scale='mean' must be one of"),
        ({"scale_factors": [3]}, "scale factor 3 is not available"),
        ({"scale_factors": []}, "scale_factors is empty; use SingleScale"),
        (
            {"scale_factors": [0.25], "half_scale": "max_pool"},
            "scale factor 0.25 is not available with half_scale='max_pool'",
        ),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pyramid(**options)
