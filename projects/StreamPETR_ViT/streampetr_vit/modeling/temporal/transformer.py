"""The decoder: hybrid self-attention over queries and memory, cross-attention to image tokens.

Shape letters: B streams, Q queries, K keys, T image tokens, L layers, E channels, h heads, D head
dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from streampetr_vit.modeling.ops.attention import attention

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class MultiHeadAttention(nn.Module):
    """Multi-head attention with one packed input projection (rows: query, key, value).

    Args:
        embed_dim: channels E.
        num_heads: heads h; divides E.
        dropout: probability of dropping an attention weight in training.
        kernel: see `ops.attention.attention`.
        precision: one of `PRECISIONS`; of the softmax attention between the projections, which
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
        if precision not in PRECISIONS:
            raise ValueError(f"precision {precision!r} is unknown; use one of {sorted(PRECISIONS)}")
        self.dtype = PRECISIONS[precision]
        self.num_heads, self.dropout, self.kernel = num_heads, dropout, kernel
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
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
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, h, n, D)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        out = attention(
            q.to(self.dtype),
            k.to(self.dtype),
            v.to(self.dtype),
            blocked=blocked,
            bias=None if bias is None else bias[:, None],
            dropout_p=self.dropout if self.training else 0.0,
            kernel=self.kernel,
        )
        out = out.to(query.dtype).transpose(1, 2).flatten(2)  # (B, Q, E)
        return self.out_proj(out)


class DecoderLayer(nn.Module):
    """Post-norm layer: self-attention with memory, cross-attention to the image, feed-forward.

    Args:
        embed_dim, num_heads: E and h.
        feedforward_dim: hidden channels of the feed-forward network.
        dropout: on self-attention weights and on every branch's output.
        cross_attention_dropout: on cross-attention weights. Quirk: 0 in the published training,
            whose fused kernel ignored the configured 0.1.
        cross_attention_precision: see `MultiHeadAttention`. The published training and evaluation
            used "fp16".
        kernel: see `ops.attention.attention`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float = 0.1,
        cross_attention_dropout: float = 0.0,
        cross_attention_precision: str = "float32",
        kernel: str = "sdpa",
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(embed_dim, num_heads, dropout, kernel)
        self.cross_attention = MultiHeadAttention(
            embed_dim, num_heads, cross_attention_dropout, kernel, cross_attention_precision
        )
        self.feedforward = nn.Sequential(
            nn.Linear(embed_dim, feedforward_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward_dim, embed_dim),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        tokens: Tensor,
        token_position: Tensor,
        memory_content: Tensor | None = None,
        memory_position: Tensor | None = None,
        blocked: Tensor | None = None,
        token_bias: Tensor | None = None,
    ) -> Tensor:
        """One layer; arguments as in `TemporalDecoder.forward`. Returns (B, Q, E)."""
        query = key = content + position
        value = content
        if memory_content is not None and memory_position is not None:
            key = torch.cat((key, memory_content + memory_position), dim=1)
            value = torch.cat((value, memory_content), dim=1)
        update = self.self_attention(query, key, value, blocked=blocked)
        content = self.norms[0](content + self.dropout(update))

        update = self.cross_attention(
            content + position, tokens + token_position, tokens, bias=token_bias
        )
        content = self.norms[1](content + self.dropout(update))
        return self.norms[2](content + self.dropout(self.feedforward(content)))


class TemporalDecoder(nn.Module):
    """A stack of `DecoderLayer`s whose outputs share one final norm.

    Args:
        embed_dim, num_heads, feedforward_dim, dropout, cross_attention_dropout,
            cross_attention_precision, kernel: see `DecoderLayer`.
        num_layers: L.
        use_act_checkpoint: recompute each layer in the backward pass.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        feedforward_dim: int = 2048,
        num_layers: int = 6,
        dropout: float = 0.1,
        cross_attention_dropout: float = 0.0,
        cross_attention_precision: str = "float32",
        kernel: str = "sdpa",
        use_act_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_layers = embed_dim, num_layers
        self.use_act_checkpoint = use_act_checkpoint
        self.layers = nn.ModuleList(
            DecoderLayer(
                embed_dim,
                num_heads,
                feedforward_dim,
                dropout,
                cross_attention_dropout,
                cross_attention_precision,
                kernel,
            )
            for _ in range(num_layers)
        )
        self.post_norm = nn.LayerNorm(embed_dim)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        tokens: Tensor,
        token_position: Tensor,
        memory_content: Tensor | None = None,
        memory_position: Tensor | None = None,
        blocked: Tensor | None = None,
        token_bias: Tensor | None = None,
    ) -> Tensor:
        """Decodes queries.

        Args:
            content, position: (B, Q, E) of the queries.
            tokens, token_position: (B, T, E) of the image; position is not in the values.
            memory_content, memory_position: (B, K', E), further keys of the self-attention.
            blocked: (Q, Q + K') bool for the self-attention, True = may not attend.
            token_bias: (B, Q, T) float32, added to the cross-attention logits.

        Returns:
            (L, B, Q, E): every layer's output after the shared norm.
        """
        outputs = []
        of_the_image = (tokens, token_position)
        of_the_memory = (memory_content, memory_position)
        shared = (position, *of_the_image, *of_the_memory, blocked, token_bias)
        for layer in self.layers:
            if self.use_act_checkpoint and self.training:
                content = checkpoint(layer, content, *shared, use_reentrant=False)
            else:
                content = layer(content, *shared)
            outputs.append(self.post_norm(content))
        return torch.stack(outputs)
