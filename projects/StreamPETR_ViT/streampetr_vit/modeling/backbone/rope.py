"""Rotary position embedding on a square grid of tokens.

The first half of a head's channels turns with the row, the second half with the column; channel
pairs are adjacent (2j, 2j + 1).

Source: RoFormer (arXiv 2104.09864), EVA-02 (arXiv 2303.11331).
Shape letters: T grid side in tokens, n = T * T tokens, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

DEFAULT_BASE = 10000.0  # Source: RoFormer, EVA-02


def rotary_tables(
    head_dim: int, size: int, pretrain_size: int = 16, base: float = DEFAULT_BASE
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotation angle of every token and channel pair.

    Args:
        head_dim: D, a multiple of 4.
        size: T, side of the grid in tokens.
        pretrain_size: side of the pre-training grid. Positions are scaled so that any grid spans
            [0, pretrain_size): the network sees the coordinates that it was trained on.
        base: the slowest pair turns about 1 / base radians per unit.

    Returns:
        Two (T * T, D / 2) float32 tensors on the CPU; row r * T + c belongs to the token at row r
        and column c. The first D / 4 pairs turn with r, the others with c.

    Raises:
        ValueError: a head dimension that does not split into pairs for two axes, or no grid.
    """
    if head_dim <= 0 or head_dim % 4:
        raise ValueError(
            f"head_dim={head_dim} must be a positive multiple of 4 for a 2D rotary embedding; "
            "change embed_dim or num_heads"
        )
    if size <= 0 or pretrain_size <= 0:
        raise ValueError(f"size={size} and pretrain_size={pretrain_size} must be positive")
    half = head_dim // 2
    # In this order of operations the tables equal the reference's bit for bit.
    exponents = torch.arange(0, half, 2, dtype=torch.float32, device="cpu") / half
    frequencies = 1.0 / base**exponents
    # Divide before multiplying, as the released weights were trained with.
    position = torch.arange(size, dtype=torch.float32, device="cpu") / size * pretrain_size
    angle = position[:, None] * frequencies  # (T, D / 4)
    rows = angle[:, None].expand(size, size, -1)
    columns = angle[None, :].expand(size, size, -1)
    angles = torch.cat((rows, columns), dim=-1).flatten(0, 1)  # (T, T, D / 2) -> (n, D / 2)
    return angles.cos(), angles.sin()


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates adjacent channel pairs of x (..., n, D), in float32 at least; gives its dtype.

    Args:
        cos, sin: (n, D / 2) float32.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    even, odd = wide.unflatten(-1, (-1, 2)).unbind(-1)  # (..., n, D) -> two of (..., n, D / 2)
    rotated = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return rotated.flatten(-2).to(x.dtype)  # (..., n, D / 2, 2) -> (..., n, D)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate_pairs`, quicker on CPUs."""
    # Compilers fuse the plain form, and do not know complex numbers.
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return rotate_pairs(x, cos, sin)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # A pair is a complex number, and the turn a product.
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))  # (..., n, D) -> (..., n, D / 2)
    return torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2).to(x.dtype)


class RotaryEmbedding2d(nn.Module):
    """Rotates queries or keys by their position in a T x T grid, see `rotary_tables`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_dim: int, size: int, pretrain_size: int = 16) -> None:
        super().__init__()
        self.head_dim, self.size, self.pretrain_size = head_dim, size, pretrain_size
        self._build(torch.get_default_device())

    def _build(self, device: torch.device) -> None:
        cos, sin = rotary_tables(self.head_dim, self.size, self.pretrain_size)
        # Functions of the grid alone: never stored in, or loaded from, a checkpoint.
        self.register_buffer("cos", cos.to(device), persistent=False)
        self.register_buffer("sin", sin.to(device), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryEmbedding2d:
        super()._apply(fn, recurse)
        # half(), double() and to_empty() spoil the values: the tables stay float32 and valid.
        self._build(self.cos.device)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Rotates x: (..., T * T, D) -> the same shape and dtype."""
        return rotate_pairs(x, self.cos, self.sin)
