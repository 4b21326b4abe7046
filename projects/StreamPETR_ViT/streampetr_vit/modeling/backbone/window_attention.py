"""Multi-head self-attention inside square windows of a token map.

Shape letters: B images, H W token map, C channels, T window side, n tokens, h heads, D head
dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from streampetr_vit.modeling.backbone.padded_attention import window_attention
from streampetr_vit.modeling.backbone.rope import RotaryEmbedding2d, rotate
from streampetr_vit.modeling.backbone.windows import WindowLayout, merge_windows, split_windows
from streampetr_vit.modeling.ops.attention import attention
from streampetr_vit.modeling.ops.linear import linear


class WindowAttention(nn.Module):
    """Self-attention in T x T windows with a rotary position embedding that restarts in each.

    Quirk: padding tokens are not masked, as the released weights were trained. They enter the
    softmax as keys that are zero with values `v_bias`. `forward` makes the padding, and is the
    specification; `attend` computes the same without it.

    Args:
        dim: C.
        num_heads: h, divides `dim`.
        window_size: T in tokens; 0 attends over the whole map.
        rope: rotates queries and keys, made for the window (or the whole map); None for none.
        qkv_bias, subln: as in `ViT`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        rope: RotaryEmbedding2d | None,
        qkv_bias: bool = True,
        subln: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.window_size, self.rope = num_heads, window_size, rope
        self.q_proj = nn.Linear(dim, dim, bias=False)
        # A bias of the keys would add the same to all logits of a query, which softmax ignores.
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
            return self._attend_padded(x.flatten(1, 2)).view_as(x)  # one window of H * W tokens
        windows = split_windows(x, self.window_size)  # (B', T, T, C), B' windows
        attended = self._attend_padded(windows.flatten(1, 2)).view_as(windows)
        return merge_windows(attended, (x.shape[1], x.shape[2]))

    def attend(self, x: Tensor, layout: WindowLayout, kernel: str) -> Tensor:
        """Attends inside every window of x: (n, C) -> (n, C) in window order, without padding.

        Args:
            layout: of this module's windows and rotary table.
            kernel: as in `padded_attention.window_attention`.
        """
        # Three products and not one: joined weights would be a copy in every call.
        layers = (
            (self.q_proj.weight, self.q_bias),
            (self.k_proj.weight, None),
            (self.v_proj.weight, self.v_bias),
        )
        query, key, value = (  # (n, h, D) each
            linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)) for weight, bias in layers
        )
        if layout.cos is not None and layout.sin is not None:
            query = rotate(query, layout.cos, layout.sin)
            key = rotate(key, layout.cos, layout.sin)
        pad_value = None if self.v_bias is None else self.v_bias.view(self.num_heads, -1)
        out = window_attention(query, key, value, pad_value, layout, kernel).flatten(1)  # (n, C)
        if self.inner_attn_ln is not None:
            out = self.inner_attn_ln(out)
        return linear(out, self.proj.weight, self.proj.bias)

    def _attend_padded(self, x: Tensor) -> Tensor:
        """Full self-attention over (B', T * T, C)."""
        query = self._heads(functional.linear(x, self.q_proj.weight, self.q_bias))
        key = self._heads(self.k_proj(x))
        value = self._heads(functional.linear(x, self.v_proj.weight, self.v_bias))
        if self.rope is not None:
            query, key = self.rope(query), self.rope(key)
        out = attention(query, key, value, kernel="math")
        out = out.transpose(1, 2).flatten(2)  # (B', h, n, D) -> (B', n, C)
        return self.proj(out if self.inner_attn_ln is None else self.inner_attn_ln(out))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B', n, C) -> (B', h, n, D)
