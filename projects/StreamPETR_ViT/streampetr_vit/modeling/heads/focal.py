"""The auxiliary 2D head: one object hypothesis per token of each picture, in training.

It teaches the features where objects are, and its scores can select the tokens of the 3D head.

Source: Focal-PETR (arXiv 2212.05505), as in StreamPETR.
Shape letters: B streams, N cameras, C feature channels, H W feature height and width, I = B N
images (camera fastest), T = H W tokens of an image (row by row).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streampetr_vit.modeling.heads.outputs import ImageOutput
from streampetr_vit.modeling.heads.prior_bias import set_prior_bias
from streampetr_vit.modeling.ops.geometry import inverse_sigmoid, token_centers
from streampetr_vit.modeling.ops.rectangles import center_form_from_corners


class FocalHead(nn.Module):
    """Classes, centerness, 2D box and projected 3D centre of every token.

    Args:
        in_channels: C.
        embed_dim: width of the two towers.
        stride: pixels of one feature cell.
        num_groups: of the group norms; divides `embed_dim`.
    """

    reads_levels = False

    def __init__(
        self,
        in_channels: int,
        embed_dim: int = 256,
        num_classes: int = 10,
        stride: int = 16,
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.class_tower = _tower(in_channels, embed_dim, num_groups)
        self.box_tower = _tower(in_channels, embed_dim, num_groups)
        self.num_classes = num_classes
        self.class_logits = nn.Conv2d(embed_dim, num_classes, 1)
        self.centerness = nn.Conv2d(embed_dim, 1, 1)
        self.box_sides = nn.Conv2d(embed_dim, 4, 1)
        self.center_offset = nn.Conv2d(embed_dim, 2, 1)
        set_prior_bias((self.class_logits, self.centerness))

    def forward(self, features: Tensor, image_size: tuple[int, int]) -> ImageOutput:
        """Predicts for every token, in float32 under any ambient autocast.

        Args:
            features: (B, N, C, H, W), any float dtype.
            image_size: (height, width) of the padded images in pixels.
        """
        with torch.autocast(features.device.type, enabled=False):
            maps = features.float().flatten(0, 1)  # (B, N, C, H, W) -> (I, C, H, W)
            for_class, for_box = self.class_tower(maps), self.box_tower(maps)
            location = self._location(maps, image_size)  # (T, 2)
            # How far left, up, right and down of the cell's centre the sides are, as fractions.
            sides = _tokens(self.box_sides(for_box)).sigmoid()  # (I, T, 4)
            corners = torch.cat((location - sides[..., :2], location + sides[..., 2:]), dim=-1)
            offset = _tokens(self.center_offset(for_box))
            return ImageOutput(
                logits=_tokens(self.class_logits(for_class)),
                boxes=center_form_from_corners(corners.clamp(0, 1)),
                # The offset is added before the sigmoid, so that no centre leaves the picture.
                centers=(inverse_sigmoid(location) + offset).sigmoid(),
                centerness=_tokens(self.centerness(for_class)),
            )

    def _location(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """(T, 2) centres of the cells as fractions of the image's sides."""
        height, width = maps.shape[-2:]
        pixels = token_centers(height, width, self.stride, maps.device)
        # Made on the device: a copy from the host would wait for it.
        sides = [pixels.new_full((1,), side) for side in image_size[::-1]]
        return pixels / torch.cat(sides)

    @torch.no_grad()
    def token_indexes(self, output: ImageOutput, batch: int, ratio: float) -> Tensor:
        """Ranks the tokens of each stream, over all its cameras, by class score times centerness.

        Args:
            output: of B * N images.
            ratio: share of the N * T tokens to keep, rounded down, but at least one.

        Returns:
            (B, K) int64, best first; an index counts cameras first, then rows, then columns.
        """
        best_class = output.logits.amax(-1).sigmoid()  # (I, T)
        score = best_class * output.centerness[..., 0].sigmoid()
        score = score.view(batch, -1)  # (B * N, T) -> (B, N * T): cameras compete for the tokens
        return score.topk(max(int(score.shape[1] * ratio), 1), dim=1).indices


def _tower(in_channels: int, embed_dim: int, num_groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, embed_dim, kernel_size=3, padding=1),
        nn.GroupNorm(num_groups, embed_dim),
        nn.ReLU(),
    )


def _tokens(maps: Tensor) -> Tensor:
    """(I, C, H, W) -> (I, T, C)."""
    return maps.flatten(2).transpose(1, 2)
