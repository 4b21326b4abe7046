"""Multi-head self-attention inside square windows of a token map.

Shape letters: B images, H W token map, C channels, T window side, n = T * T tokens of a window (or
H * W), h heads, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from streampetr_vit.modeling.backbone.rope import RotaryEmbedding2d
from streampetr_vit.modeling.ops.attention import attention


def split_windows(x: Tensor, size: int) -> Tensor:
    """Cuts a token map into windows, zero-padded at the bottom and the right.

    Args:
        x: (B, H, W, C).
        size: T, side of a window in tokens.

    Returns:
        (B * nH * nW, T, T, C) with nH = ceil(H / T), nW = ceil(W / T); the windows of an image are
        consecutive, in row-major order.
    """
    batch, height, width, channels = x.shape
    below, right = -height % size, -width % size
    if below or right:
        x = functional.pad(x, (0, 0, 0, right, 0, below))
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (B, nH, T, nW, T, C)
    x = x.transpose(2, 3)  # (B, nH, nW, T, T, C)
    return x.reshape(-1, size, size, channels)


def merge_windows(windows: Tensor, map_size: tuple[int, int]) -> Tensor:
    """Puts windows back into a map and crops the padding; inverse of `split_windows`.

    Args:
        windows: (B * nH * nW, T, T, C).
        map_size: (H, W) in tokens.

    Returns:
        (B, H, W, C).
    """
    size, channels = windows.shape[1], windows.shape[3]
    height, width = map_size
    rows, columns = -(-height // size), -(-width // size)
    x = windows.reshape(-1, rows, columns, size, size, channels)  # (B, nH, nW, T, T, C)
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, nH * T, nW * T, C)
    return x[:, :height, :width]


class WindowAttention(nn.Module):
    """Self-attention in T x T windows with a rotary position embedding that restarts in each.

    Padding tokens are zeros and are not masked: they enter the softmax as keys that are zero with
    values `v_bias`. Quirk: the released weights were trained so.

    Args:
        dim: C.
        num_heads: h, divides `dim`.
        window_size: T in tokens; 0 attends over the whole map.
        rope: rotates queries and keys, made for the window (or the whole map); None for none.
        qkv_bias: learn a bias of queries and values (never of keys).
        subln: normalise the concatenated heads before the output projection.
        kernel: see `ops.attention.attention`.

    Raises:
        ValueError: `num_heads` does not divide `dim`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        rope: RotaryEmbedding2d | None,
        qkv_bias: bool = True,
        subln: bool = False,
        kernel: str = "sdpa",
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide embed_dim={dim}")
        self.num_heads, self.window_size, self.kernel = num_heads, window_size, kernel
        self.rope = rope
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        # Quirk: eps 1e-5 here, unlike the 1e-6 of every other norm (EVA-CLIP weights).
        self.inner_attn_ln = nn.LayerNorm(dim, eps=1e-5) if subln else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attends inside every window of x: (B, H, W, C) -> (B, H, W, C)."""
        if self.window_size == 0:
            return self._attend(x.flatten(1, 2)).view_as(x)  # one window of n = H * W tokens
        windows = split_windows(x, self.window_size)
        attended = self._attend(windows.flatten(1, 2)).view_as(windows)  # through (B', T * T, C)
        return merge_windows(attended, (x.shape[1], x.shape[2]))

    def _attend(self, x: Tensor) -> Tensor:
        """Full self-attention over (B', n, C)."""
        query = self._heads(functional.linear(x, self.q_proj.weight, self.q_bias))
        key = self._heads(self.k_proj(x))
        value = self._heads(functional.linear(x, self.v_proj.weight, self.v_bias))
        if self.rope is not None:
            query, key = self.rope(query), self.rope(key)
        out = attention(query, key, value, kernel=self.kernel)
        out = out.transpose(1, 2).flatten(2)  # (B', h, n, D) -> (B', n, C)
        return self.proj(out if self.inner_attn_ln is None else self.inner_attn_ln(out))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B', n, C) -> (B', h, n, D)
