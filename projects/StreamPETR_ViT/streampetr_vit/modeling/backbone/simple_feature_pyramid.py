"""What stands between the ViT and the heads: a simple feature pyramid, or nothing.

Both modules keep the ViT under `net`, so that a detector's state_dict has `backbone.net.*` with or
without a pyramid, as the EVA-02 detection checkpoints have.

Source: ViTDet (arXiv 2203.16527); the released EVA-02 and StreamPETR detectors.
Shape letters: B images, C channels of the ViT, H W its map at stride 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn

from streampetr_vit.modeling.backbone.layers import LayerNorm2d

HALF_SCALES = ("conv", "max_pool")


class TopBlock(Protocol):
    """What makes further levels of one level, as detectron2's `LastLevelMaxPool` (a module)."""

    num_levels: int
    in_feature: str

    def __call__(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to `num_levels` maps, each of half the resolution of the one before."""
        ...


class SingleScale(Backbone):
    """A backbone without a pyramid: passes the maps of its `net` on as they are."""

    def __init__(self, net: Backbone) -> None:
        super().__init__()
        self.net = net
        shapes = net.output_shape()
        self._out_features = list(shapes)
        self._out_feature_channels = {name: shape.channels for name, shape in shapes.items()}
        self._out_feature_strides = {name: shape.stride for name, shape in shapes.items()}

    @property
    def size_divisibility(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return max(self._out_feature_strides.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, height, width) to the maps of `net`."""
        return self.net(x)


class SimpleFeaturePyramid(Backbone):
    """Makes levels of several strides from the last map of a plain ViT, each on its own.

    Level `p{k}` has stride 2^k. There is no activation after the last norm.

    Args:
        net: the ViT.
        in_feature: name of the map of `net` to start from.
        scale_factors: resolution of each level over that of the map: 4, 2, 1, 0.5 or 0.25.
        top_block: makes further levels of one level; None for no more levels.
        norm: "LN" for a layer norm over channels, "" for none, else a name of detectron2's
            `get_norm`.
        half_scale: how scale 0.5 is made: "conv", a learned 2x2 convolution of stride 2
            (StreamPETR, RepDETR3D), or "max_pool" (EVA-02 detection, ViTDet).
        square_pad: side in pixels that the images are padded to; 0 for none. Only passed on as
            `padding_constraints`.

    Raises:
        ValueError: an unknown feature, scale or `half_scale`; the message says what is allowed.
    """

    def __init__(
        self,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: TopBlock | None = None,
        norm: str = "LN",
        half_scale: str = "conv",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        shapes = net.output_shape()
        if in_feature not in shapes:
            raise ValueError(f"in_feature={in_feature!r} is not among {sorted(shapes)} of net")
        if half_scale not in HALF_SCALES:
            raise ValueError(f"half_scale={half_scale!r} must be one of {HALF_SCALES}")
        self.net, self.in_feature, self.square_pad = net, in_feature, square_pad
        if not scale_factors:
            raise ValueError("scale_factors is empty; use SingleScale for a backbone of one level")
        channels, net_stride = shapes[in_feature].channels, shapes[in_feature].stride
        strides = {}
        for scale in scale_factors:
            stem, stem_channels = _stem(channels, scale, half_scale, norm)
            stride = int(net_stride / scale)
            stage = stride.bit_length() - 1  # stride is a power of two
            level = nn.Sequential(*stem, *_output_convs(stem_channels, out_channels, norm))
            self.add_module(f"simfp_{stage}", level)  # the name in EVA-02's checkpoints
            strides[f"p{stage}"] = stride
        self._level_names = list(strides)
        self.top_block = top_block
        if top_block is not None:
            for extra in range(1, top_block.num_levels + 1):
                strides[f"p{stage + extra}"] = stride * 2**extra
        self._out_features = list(strides)
        self._out_feature_strides = strides
        self._out_feature_channels = dict.fromkeys(strides, out_channels)

    @property
    def size_divisibility(self) -> int:
        """Image sides must be multiples of this many pixels."""
        # Quirk: at most 32. Scale 0.25 (stride 64) drops the columns and rows that do not fill a
        # cell, as the reference does with its padding to 32.
        return min(32, max(self._out_feature_strides[name] for name in self._level_names))

    @property
    def padding_constraints(self) -> dict[str, int]:
        """What detectron2's `ImageList` needs to know to pad images."""
        return {"size_divisibility": self.size_divisibility, "square_size": self.square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, 16 H, 16 W) to {"p{k}": (B, out_channels, 16 H / 2^k, 16 W / 2^k)}.

        In the order of `scale_factors`, then the levels of `top_block`.
        """
        features = dict(self.net(x))
        source = features[self.in_feature]  # (B, C, H, W)
        for name in self._level_names:
            # p3 -> simfp_3; every level comes from the one map, none from another level
            features[name] = getattr(self, f"simfp_{name[1:]}")(source)
        if self.top_block is not None:
            extra = self.top_block(features[self.top_block.in_feature])
            added = self._out_features[len(self._level_names) :]
            features.update(zip(added, extra, strict=True))
        return {name: features[name] for name in self._out_features}


def _stem(channels: int, scale: float, half_scale: str, norm: str) -> tuple[list[nn.Module], int]:
    """The layers that change the resolution, and how many channels come out of them."""
    if scale == 4:
        upsample = [
            nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2),
            _norm(norm, channels // 2) or nn.Identity(),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, kernel_size=2, stride=2),
        ]
        return upsample, channels // 4
    if scale == 2:
        return [nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)], channels // 2
    if scale == 1:
        return [], channels
    if scale == 0.5 and half_scale == "max_pool":
        return [nn.MaxPool2d(kernel_size=2, stride=2)], channels
    if scale == 0.5 or (scale == 0.25 and half_scale == "conv"):
        stride = int(1 / scale)
        return [nn.Conv2d(channels, channels, kernel_size=stride, stride=stride)], channels
    raise ValueError(
        f"scale factor {scale} is not available with half_scale={half_scale!r}; "
        "use 4, 2, 1, 0.5, and with half_scale='conv' also 0.25"
    )


def _output_convs(in_channels: int, out_channels: int, norm: str) -> list[nn.Module]:
    return [
        Conv2d(
            channels,
            out_channels,
            kernel_size=kernel,
            padding=kernel // 2,
            bias=norm == "",  # a norm takes the mean away, and a bias with it
            norm=_norm(norm, out_channels),
        )
        for channels, kernel in ((in_channels, 1), (out_channels, 3))
    ]


def _norm(name: str, channels: int) -> nn.Module | None:
    # detectron2 v0.6 knows no "LN".
    return LayerNorm2d(channels) if name == "LN" else get_norm(name, channels)
