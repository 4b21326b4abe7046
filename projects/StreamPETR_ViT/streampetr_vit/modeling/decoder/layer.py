"""One layer of the decoder.

Shape letters: B streams, Q queries, E channels, h heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from streampetr_vit.modeling.decoder.attention import MultiHeadAttention
from streampetr_vit.modeling.ops.linear import Linear


class DecoderLayer(nn.Module):
    """Post-norm layer: self-attention with memory, a look at the image, feed-forward.

    Args:
        embed_dim, num_heads: E and h.
        feedforward_dim: hidden channels of the feed-forward network.
        cross_attention: called with content, position, points in metres and the image; gives the
            update of the queries.
        dropout: on self-attention weights and on the output of both attentions.
        feedforward_dropout: inside and behind the feed-forward network.
        kernel: see `ops.attention.attention`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        feedforward_dim: int,
        cross_attention: nn.Module,
        dropout: float = 0.1,
        feedforward_dropout: float = 0.1,
        kernel: str = "sdpa",
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(embed_dim, num_heads, dropout, kernel)
        self.cross_attention = cross_attention
        self.feedforward = nn.Sequential(
            Linear(embed_dim, feedforward_dim),
            nn.ReLU(),
            nn.Dropout(feedforward_dropout),
            Linear(feedforward_dim, embed_dim),
            nn.Dropout(feedforward_dropout),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        # Not the cross-attention, which has first values of its own.
        for part in (self.self_attention, self.feedforward):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(self.self_attention.out_proj.bias)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        image: Any,
        points_m: Tensor | None = None,
        memory_content: Tensor | None = None,
        memory_position: Tensor | None = None,
        blocked: Tensor | None = None,
    ) -> Tensor:
        """One layer; arguments as in `Decoder.forward`. Returns (B, Q, E)."""
        # Positions say where to attend, and are not in what is read.
        query = key = content + position
        value = content
        if memory_content is not None and memory_position is not None:
            # (B, Q, E), (B, K', E) -> (B, Q + K', E): the memory is read, and asks nothing itself
            key = torch.cat((key, memory_content + memory_position), dim=1)
            value = torch.cat((value, memory_content), dim=1)
        update = self.self_attention(query, key, value, blocked=blocked)
        content = self.norms[0](content + self.dropout(update))

        update = self.cross_attention(content, position, points_m, image)
        content = self.norms[1](content + self.dropout(update))
        return self.norms[2](content + self.feedforward(content))
