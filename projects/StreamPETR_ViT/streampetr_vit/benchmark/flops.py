"""Floating-point operations of the image branch, from the configuration; multiply-add = 2.

Only matrix products count, as in spec section 9.1: linear layers, attention, convolutions.
Shape letters: C channels, H W token map, T window side, r real tokens of a window.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone import CPFPN, SimpleFeaturePyramid, ViT

# What of the padding is computed: nothing; keys and queries of the attention; the attention's
# projections as well, as the plain form does. The first is what "useful" means.
FORMS = ("useful", "padded attention", "padded")


@dataclass(frozen=True)
class WindowShape:
    """Windows of one kind.

    Attributes:
        count: of them in one image.
        real: tokens of the image in each.
        padded: tokens beside them that are zeros.
        local: of the blocks with local windows, not of the global ones.
    """

    count: int
    real: int
    padded: int
    local: bool


@dataclass(frozen=True)
class ViTShape:
    """What the arithmetic of a ViT depends on; the names are those of `ViT`'s arguments."""

    patch_size: int
    in_chans: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    window_size: int
    global_window_size: int
    num_window_blocks: int

    @staticmethod
    def of(net: Mapping[str, Any]) -> ViTShape:
        """Of the `backbone.net` section of a configuration.

        Raises:
            InputError: residual blocks, which are not counted.
        """
        settings = with_defaults(ViT, net)
        if len(settings["residual_block_indexes"]):
            raise InputError(
                "operations of model.backbone.net.residual_block_indexes are not counted; leave "
                "them empty"
            )
        names = [name for name in ViTShape.__dataclass_fields__ if name in settings]
        return ViTShape(
            **{name: settings[name] for name in names},
            num_window_blocks=len(set(settings["window_block_indexes"])),
        )

    def token_map(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) in tokens of an image of (height, width) pixels."""
        return image_size[0] // self.patch_size, image_size[1] // self.patch_size

    def windows(self, image_size: tuple[int, int]) -> list[WindowShape]:
        """The kinds of windows of both kinds of blocks, for one image."""
        height, width = self.token_map(image_size)
        shapes = []
        for local, blocks in ((True, self.num_window_blocks), (False, self.num_global_blocks)):
            side = self.window_size if local else self.global_window_size
            if blocks and side == 0:  # the whole map
                shapes.append(WindowShape(1, height * width, 0, local))
            elif blocks:
                areas = Counter(h * w for h in _cuts(height, side) for w in _cuts(width, side))
                shapes += [WindowShape(n, r, side**2 - r, local) for r, n in areas.items()]
        return shapes

    @property
    def num_global_blocks(self) -> int:
        """Blocks without local windows."""
        return self.depth - self.num_window_blocks

    def flops(self, image_size: tuple[int, int], form: str = "useful") -> float:
        """Of one image of (height, width) pixels; `form` is one of `FORMS`."""
        if form not in FORMS:
            raise InputError(f"form {form!r} is unknown; use one of {list(FORMS)}")
        height, width = self.token_map(image_size)
        tokens, dim = height * width, self.embed_dim
        patch = 2 * tokens * dim * self.in_chans * self.patch_size**2
        hidden = int(dim * self.mlp_ratio)
        total = patch + self.depth * tokens * 6 * dim * hidden
        for window in self.windows(image_size):
            blocks = self.num_window_blocks if window.local else self.num_global_blocks
            full = window.real + window.padded
            projected = full if form == "padded" else window.real
            attending = window.real if form == "useful" else full
            each = 8 * dim**2 * projected + 4 * dim * attending**2
            total += blocks * window.count * each
        return float(total)


def with_defaults(target: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a class in a configuration, with the defaults of those not given."""
    parameters = inspect.signature(target).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults | {name: settings[name] for name in settings if name != "_target_"}


def image_branch_flops(model: Mapping[str, Any], image_size: tuple[int, int]) -> float:
    """Useful operations of backbone, pyramid and neck for one image.

    Args:
        model: the model section of a configuration.
        image_size: (height, width) in pixels, padded.
    """
    backbone = model["backbone"]
    vit = ViTShape.of(backbone["net"])
    total = vit.flops(image_size)
    if "scale_factors" in backbone:
        total += pyramid_flops(backbone, vit, image_size)
    if model["neck"] is not None:
        total += neck_flops(model["neck"], vit, image_size)
    return total


def pyramid_flops(backbone: Mapping[str, Any], vit: ViTShape, image_size: tuple[int, int]) -> float:
    """Of a `SimpleFeaturePyramid` on one image, its top block aside."""
    settings = with_defaults(SimpleFeaturePyramid, backbone)
    out = settings["out_channels"]
    height, width = vit.token_map(image_size)
    cells, dim, total = height * width, vit.embed_dim, 0.0
    for scale in settings["scale_factors"]:
        channels, level = dim, int(height * scale) * int(width * scale)
        if scale == 4:  # two transposed convolutions of stride 2
            total += 2 * cells * 4 * dim * (dim // 2) + 2 * 4 * cells * 4 * (dim // 2) * (dim // 4)
            channels = dim // 4
        elif scale == 2:
            total += 2 * cells * 4 * dim * (dim // 2)
            channels = dim // 2
        elif scale < 1 and settings["half_scale"] == "conv":
            total += 2 * level * dim**2 * round(1 / scale) ** 2
        total += 2 * level * (channels * out + 9 * out**2)
    return total


def neck_flops(neck: Mapping[str, Any], vit: ViTShape, image_size: tuple[int, int]) -> float:
    """Of a `CPFPN` on one image, whose maps are the ViT's ("p3": stride 8)."""
    settings = with_defaults(CPFPN, neck)
    out, total = settings["out_channels"], 0.0
    for place, name in enumerate(settings["in_features"]):
        level = name.startswith("p") and name[1:].isdigit()
        stride = 2 ** int(name[1:]) if level else vit.patch_size
        cells = (image_size[0] // stride) * (image_size[1] // stride)
        total += 2 * cells * out * (settings["in_channels"][place] + (9 * out if not place else 0))
    return total


def _cuts(length: int, side: int) -> list[int]:
    """Real tokens along one axis of each window."""
    return [min(side, length - start) for start in range(0, length, side)]
