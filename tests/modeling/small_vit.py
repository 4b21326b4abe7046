"""A ViT of three blocks whose windows do not divide its maps."""

from __future__ import annotations

from typing import Any

import torch

from streampetr_vit.modeling.backbone import ViT

SMALL = {
    "img_size": 80,
    "embed_dim": 64,
    "depth": 3,
    "num_heads": 2,
    "window_size": 4,
    "global_window_size": 5,
    "window_block_indexes": [0, 1],
}


def small_vit(**changes: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(**{**SMALL, **changes})
