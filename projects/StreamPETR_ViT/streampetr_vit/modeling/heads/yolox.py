"""The auxiliary 2D head of a feature pyramid: one object hypothesis per cell of every level.

It only teaches the features, in training: it cannot choose tokens for the 3D head.

Source: YOLOX (arXiv 2107.08430) with a projected 3D centre, as in RepDETR3D.
Shape letters: B streams, N cameras, C feature channels, h w size of one level, I = B N images
(camera fastest), M cells of all levels (finest level first, row by row).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.heads.outputs import YOLOXOutput
from streampetr_vit.modeling.heads.prior_bias import set_prior_bias
from streampetr_vit.modeling.ops.geometry import token_centers


class YOLOXHead(nn.Module):
    """Classes, objectness, 2D box and projected 3D centre of every cell; no level shares weights.

    Args:
        in_channels: C of every level.
        strides: pixels of one cell, per level.
        embed_dim, num_blocks: width and depth of the towers.
    """

    reads_levels = True

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[int] = (4, 8, 16, 32),
        embed_dim: int = 256,
        num_classes: int = 10,
        num_blocks: int = 2,
    ) -> None:
        super().__init__()
        if not strides or min(strides) < 1 or num_blocks < 1:
            raise ValueError(
                f"strides ({list(strides)}) must be one positive number of pixels per level, and "
                f"num_blocks ({num_blocks}) at least 1"
            )
        self.strides = tuple(strides)

        def towers() -> nn.ModuleList:
            return nn.ModuleList(_tower(in_channels, embed_dim, num_blocks) for _ in self.strides)

        def predictors(channels: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(embed_dim, channels, 1) for _ in self.strides)

        self.class_towers, self.box_towers = towers(), towers()
        self.num_classes = num_classes
        self.level_class_logits = predictors(num_classes)
        self.level_boxes = predictors(4)
        self.level_objectness = predictors(1)
        self.level_center_offset = predictors(2)
        self._init_weights()

    def _init_weights(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                # As YOLOX: the bounds that torch has by default, with biases of zero.
                nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        set_prior_bias((*self.level_class_logits, *self.level_objectness))

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> YOLOXOutput:
        """Predicts for every cell of every level, in float32 under any ambient autocast.

        Args:
            features: one map per stride, each (B, N, C, h, w), any float dtype.
            image_size: (height, width) of the padded images in pixels.

        Raises:
            InputError: the maps do not fit the strides and the image size.
        """
        self._check_maps(features, image_size)
        with torch.autocast(features[0].device.type, enabled=False):
            # (B, N, C, h, w) -> (I, C, h, w)
            levels = [self._level(i, maps.float().flatten(0, 1)) for i, maps in enumerate(features)]
            logits, codes, objectness, offsets = (
                torch.cat(parts, dim=1)  # L times (I, h w, ...) -> (I, M, ...)
                for parts in zip(*levels, strict=True)
            )
            return YOLOXOutput(logits, codes, objectness, offsets, *self._cells(features))

    def _level(self, index: int, maps: Tensor) -> tuple[Tensor, ...]:
        """Predictions (I, h w, ...) of one level from its maps (I, C, h, w)."""
        for_class, for_box = self.class_towers[index](maps), self.box_towers[index](maps)
        predicted = (
            self.level_class_logits[index](for_class),
            self.level_boxes[index](for_box),
            self.level_objectness[index](for_box),
            self.level_center_offset[index](for_box),
        )
        return tuple(value.flatten(2).transpose(1, 2) for value in predicted)  # (I, h w, ...)

    def _cells(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(M, 2) top left corners in pixels, and (M,) strides."""
        priors, strides = [], []
        for maps, stride in zip(features, self.strides, strict=True):
            height, width = maps.shape[-2:]
            # token_centers adds half a stride; the cells' corners are wanted here.
            priors.append(token_centers(height, width, stride, maps.device) - stride // 2)
            strides.append(torch.full((height * width,), float(stride), device=maps.device))
        return torch.cat(priors), torch.cat(strides)

    def _check_maps(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> None:
        sizes = [tuple(maps.shape[-2:]) for maps in features]
        # A last column or row that the image fills in part may be there or not.
        fits = len(sizes) == len(self.strides) and all(
            abs(cells * stride - pixels) < stride
            for size, stride in zip(sizes, self.strides, strict=True)
            for cells, pixels in zip(size, image_size, strict=True)
        )
        if not fits:
            raise InputError(
                f"feature maps of (height, width) {sizes} do not fit images of {tuple(image_size)} "
                f"at strides {list(self.strides)}; give the 2D head one stride for each level of "
                "the pyramid, finest first, and the size of the padded images"
            )


def _tower(in_channels: int, embed_dim: int, num_blocks: int) -> nn.Sequential:
    return nn.Sequential(
        *(_block(embed_dim if index else in_channels, embed_dim) for index in range(num_blocks))
    )


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            bn=nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.03),
            act=nn.SiLU(),
        )
    )
