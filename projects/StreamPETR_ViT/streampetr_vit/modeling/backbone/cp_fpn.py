"""A feature pyramid with a convolution after its finest level only.

Source: the neck of StreamPETR's ResNet and VoVNet models.
Shape letters: B images, C channels of a level, H W its height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_vit.errors import InputError


class CPFPN(nn.Module):
    """Brings maps to one width and adds the coarser ones to the finer ones.

    Args:
        in_channels: C of each map, the finest first.
        in_features: names of the maps, in the same order. The outputs have the same names.

    Raises:
        ValueError: names and channels are not as many, or there are none.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, in_features: Sequence[str]
    ) -> None:
        super().__init__()
        if not in_channels or len(in_channels) != len(in_features):
            raise ValueError(
                f"in_channels {list(in_channels)} and in_features {list(in_features)} must name "
                "the channels of the same maps: as many of one as of the other, at least one"
            )
        self.in_features = tuple(in_features)
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, out_channels, 1) for c in in_channels)
        # A list of one, as the released weights name it.
        self.fpn_convs = nn.ModuleList([nn.Conv2d(out_channels, out_channels, 3, padding=1)])
        for conv in (*self.lateral_convs, *self.fpn_convs):
            nn.init.xavier_uniform_(conv.get_parameter("weight"))
            nn.init.zeros_(conv.get_parameter("bias"))

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps (B, C, H, W) to maps (B, out_channels, H, W), both by `in_features`' names.

        Raises:
            InputError: a map is missing.
        """
        missing = [name for name in self.in_features if name not in features]
        if missing:
            raise InputError(
                f"CPFPN.in_features names {missing}, but the backbone gives {list(features)}"
            )
        levels = [
            conv(features[name])
            for conv, name in zip(self.lateral_convs, self.in_features, strict=True)
        ]
        # From coarse to fine, so that each level has all coarser ones in it.
        for fine in reversed(range(len(levels) - 1)):
            size = levels[fine].shape[-2:]
            levels[fine] = levels[fine] + F.interpolate(levels[fine + 1], size, mode="nearest")
        # The coarser levels go out without a convolution.
        levels[0] = self.fpn_convs[0](levels[0])
        return dict(zip(self.in_features, levels, strict=True))
