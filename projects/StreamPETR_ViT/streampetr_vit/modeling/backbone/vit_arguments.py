"""What the arguments of the ViT must satisfy; the errors name the argument and the way out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from streampetr_vit.modeling.backbone.rope import RotaryEmbedding2d
from streampetr_vit.modeling.ops.kernel_choice import KERNEL_NAMES

SELECTIVE = "selective"  # activation checkpointing that keeps products and attentions


def check_arguments(
    embed_dim: int,
    depth: int,
    num_heads: int,
    drop_path_rate: float,
    window_blocks: frozenset[int],
    residual_blocks: Sequence[int],
) -> None:
    """Raises ValueError for sizes and block indexes that do not fit together."""
    if embed_dim % num_heads:
        raise ValueError(f"num_heads={num_heads} must divide embed_dim={embed_dim}")
    if not 0.0 <= drop_path_rate < 1.0:
        raise ValueError(f"drop_path_rate={drop_path_rate} must be at least 0 and less than 1")
    for name, indexes in (
        ("window_block_indexes", window_blocks),
        ("residual_block_indexes", residual_blocks),
    ):
        outside = sorted(index for index in indexes if not 0 <= index < depth)
        if outside:
            raise ValueError(f"{name} names {outside}, but depth={depth} allows 0 to {depth - 1}")


def check_choices(use_act_checkpoint: bool | str, xattn: bool | str) -> None:
    """Raises ValueError for a checkpointing policy or an attention kernel that does not exist."""
    if use_act_checkpoint not in (False, True, SELECTIVE):
        raise ValueError(
            f"use_act_checkpoint={use_act_checkpoint!r} must be False, True (whole blocks) or "
            f"{SELECTIVE!r}"
        )
    if xattn not in (False, True, *KERNEL_NAMES):
        raise ValueError(
            f"xattn={xattn!r} must be False (plain maths), True (the quickest kernel at hand) or "
            f"one of {list(KERNEL_NAMES)}"
        )


def check_windows(window_size: int, global_window_size: int, local: int, depth: int) -> None:
    """Raises ValueError for windows that cannot be, and warns of windows that coincide.

    `local` of the `depth` blocks have local windows.
    """
    if local and window_size <= 0:
        raise ValueError(
            f"window_size={window_size} must be positive: window_block_indexes names {local} "
            "blocks with local windows"
        )
    if global_window_size < 0:
        raise ValueError(f"global_window_size={global_window_size} must be 0 (whole map) or more")
    if 0 < local < depth and window_size == global_window_size:
        warnings.warn(
            f"global_window_size={global_window_size} equals window_size: global windows coincide "
            "with local ones and no information crosses their borders",
            stacklevel=3,
        )


def rotary_table(
    head_dim: int,
    pretrain_size: int,
    intp_freq: bool,
    window: int,
    grid: int,
    window_name: str,
    grid_name: str,
) -> RotaryEmbedding2d:
    """A table as wide as the window that it rotates (0, the whole map, is checked per image)."""
    if not intp_freq:
        grid, grid_name = pretrain_size, "pt_hw_seq_len (because intp_freq is False)"
    if window not in (0, grid):
        raise ValueError(
            f"{window_name}={window} must equal {grid_name} = {grid}, the side of its rotary "
            f"table; set {window_name}={grid}, or change what it must equal"
        )
    return RotaryEmbedding2d(head_dim, grid, pretrain_size)
