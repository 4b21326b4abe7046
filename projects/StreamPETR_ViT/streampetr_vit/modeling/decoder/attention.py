"""Multi-head attention, and how StreamPETR's queries look at the image with it.

Shape letters: B streams, Q queries, K keys, T image tokens, E channels, h heads, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streampetr_vit.modeling.ops.attention import KERNELS, attention
from streampetr_vit.modeling.ops.linear import Linear, linear
from streampetr_vit.modeling.ops.precision import DTYPES


class MultiHeadAttention(nn.Module):
    """Multi-head attention with one packed input projection (rows: query, key, value).

    Args:
        embed_dim, num_heads: E, and h, which divides it.
        dropout: probability of dropping an attention weight in training.
        kernel: see `ops.attention.attention`.
        precision: one of `DTYPES`; of the softmax attention between the projections, which
            are float32 in any case.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        kernel: str = "sdpa",
        precision: str = "float32",
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"num_heads ({num_heads}) must divide embed_dim ({embed_dim})")
        if kernel not in KERNELS:
            raise ValueError(f"kernel {kernel!r} is unknown; use one of {sorted(KERNELS)}")
        if precision not in DTYPES:
            raise ValueError(f"precision {precision!r} is unknown; use one of {sorted(DTYPES)}")
        self.dtype = DTYPES[precision]
        self.num_heads, self.dropout, self.kernel = num_heads, dropout, kernel
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = Linear(embed_dim, embed_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        blocked: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Attends from (B, Q, E) to (B, K, E).

        Args:
            blocked: (Q, K) bool, True = may not attend.
            bias: (B, Q, K) float32 added to the logits of every head.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        # (B, n, E) -> (B, n, h, D) -> (B, h, n, D)
        q, k, v = (
            linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        out = attention(
            *(x.to(self.dtype) for x in (q, k, v)),
            blocked=blocked,
            bias=None if bias is None else bias[:, None],  # (B, 1, Q, K) for all heads
            dropout_p=self.dropout if self.training else 0.0,
            kernel=self.kernel,
        )
        out = out.to(query.dtype).transpose(1, 2).flatten(2)  # (B, h, Q, D) -> (B, Q, E)
        return self.out_proj(out)


@dataclass(frozen=True)
class ImageTokens:
    """An image as tokens that queries attend to.

    Attributes:
        tokens, position: (B, T, E); position is not in the values.
        bias: (B, Q, T) float32 added to the attention logits, or None.
    """

    tokens: Tensor
    position: Tensor
    bias: Tensor | None = None


class TokenAttention(MultiHeadAttention):
    """Looks at the image by attending to all of its tokens."""

    def forward(  # type: ignore[override]
        self, content: Tensor, position: Tensor, points_m: Tensor | None, image: ImageTokens
    ) -> Tensor:
        """The update (B, Q, E) of queries with content and position (B, Q, E).

        `points_m` is not looked at: it is there so that all cross-attentions are called alike.
        """
        return super().forward(
            content + position, image.tokens + image.position, image.tokens, bias=image.bias
        )
