"""In which order the tokens of a batch of maps go through the blocks of a ViT.

Shape letters: B images, H W token map, n = B * H * W tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.modeling.backbone.rope import RotaryEmbedding2d
from streampetr_vit.modeling.backbone.windows import WindowLayout

PlanKey = tuple[int, int, int, torch.device]  # B, H, W
MAX_PLANS = 8  # sizes that a ViT remembers the plan of


@dataclass(frozen=True)
class TokenPlan:
    """A layout for each block, and how the tokens come into it.

    Attributes:
        layouts: of each block.
        moves: for each block (n,) int64, the place in the order before it that each token comes
            from; None where the order stays. Before the first block it is row-major.
    """

    layouts: tuple[WindowLayout, ...]
    moves: tuple[Tensor | None, ...]

    @staticmethod
    def make(
        batch: int,
        map_size: tuple[int, int],
        windows: Sequence[tuple[int, RotaryEmbedding2d | None]],
        device: torch.device,
    ) -> TokenPlan:
        """The plan of a batch of B maps of (H, W) tokens.

        Args:
            windows: of each block the side of its windows in tokens (0 = the whole map) and the
                rotary table that fits it.
        """
        made: dict[int, WindowLayout] = {}
        layouts: list[WindowLayout] = []
        moves: list[Tensor | None] = []
        for size, rope in windows:
            if size not in made:  # blocks with equal windows share a layout, and nothing moves
                tables = None if rope is None else (rope.cos, rope.sin)
                made[size] = WindowLayout.make(batch, map_size, size, tables, device)
            layout, before = made[size], layouts[-1] if layouts else None
            if before is layout:
                moves.append(None)
            else:
                # Where the token of each place stands now: by its number in row-major order.
                moves.append(layout.order if before is None else before.inverse[layout.order])
            layouts.append(layout)
        return TokenPlan(tuple(layouts), tuple(moves))
