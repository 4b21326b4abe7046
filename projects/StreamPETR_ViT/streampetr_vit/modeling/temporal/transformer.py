"""The decoder: hybrid self-attention over queries and memory, then a look at the image.

How a query looks at the image is a module of its own: attention to all tokens (StreamPETR), or
sampling at projected points (RepDETR3D, `camera_sampling`).

Shape letters: B streams, Q queries, K keys, T image tokens, L layers, E channels, h heads, D head
dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from streampetr_vit.modeling.ops.attention import attention
from streampetr_vit.modeling.ops.linear import Linear, linear
from streampetr_vit.modeling.temporal.camera_sampling import CameraSampling

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
        q, k, v = (
            linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, h, n, D)
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
        """The update (B, Q, E) of queries.

        Args:
            content, position: (B, Q, E).
            points_m: not looked at.
            image: the tokens.
        """
        return super().forward(
            content + position, image.tokens + image.position, image.tokens, bias=image.bias
        )


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
        query = key = content + position
        value = content
        if memory_content is not None and memory_position is not None:
            key = torch.cat((key, memory_content + memory_position), dim=1)
            value = torch.cat((value, memory_content), dim=1)
        update = self.self_attention(query, key, value, blocked=blocked)
        content = self.norms[0](content + self.dropout(update))

        update = self.cross_attention(content, position, points_m, image)
        content = self.norms[1](content + self.dropout(update))
        return self.norms[2](content + self.feedforward(content))


class Decoder(nn.Module):
    """A stack of layers.

    Args:
        layers: L of them.
        embed_dim: E.
        with_post_norm: one norm, shared by the outputs of all layers.
        use_act_checkpoint: recompute each layer in the backward pass.
    """

    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        embed_dim: int,
        with_post_norm: bool,
        use_act_checkpoint: bool,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_layers = embed_dim, len(layers)
        self.use_act_checkpoint = use_act_checkpoint
        self.layers = nn.ModuleList(layers)
        self.post_norm = nn.LayerNorm(embed_dim) if with_post_norm else nn.Identity()

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
        """Decodes queries.

        Args:
            content, position: (B, Q, E) of the queries.
            image: what the layers' cross-attention looks at.
            points_m: (B, Q, 3) reference points of the queries in metres, lidar frame.
            memory_content, memory_position: (B, K', E), further keys of the self-attention.
            blocked: (Q, Q + K') bool for the self-attention, True = may not attend.

        Returns:
            (L, B, Q, E): every layer's output.
        """
        outputs = []
        shared = (position, image, points_m, memory_content, memory_position, blocked)
        for layer in self.layers:
            if self.use_act_checkpoint and self.training:
                content = checkpoint(layer, content, *shared, use_reentrant=False)
            else:
                content = layer(content, *shared)
            outputs.append(self.post_norm(content))
        return torch.stack(outputs)


class TemporalDecoder(Decoder):
    """StreamPETR's: attention to all image tokens, and a norm at the end.

    Args:
        embed_dim, num_heads, feedforward_dim, dropout, kernel: see `DecoderLayer`.
        num_layers: L.
        cross_attention_dropout: on cross-attention weights. Quirk: 0 in the published training,
            whose fused kernel ignored the configured 0.1.
        cross_attention_precision: see `MultiHeadAttention`. The published training and evaluation
            used "fp16".
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
        layers = [
            DecoderLayer(
                embed_dim,
                num_heads,
                feedforward_dim,
                TokenAttention(
                    embed_dim,
                    num_heads,
                    cross_attention_dropout,
                    kernel,
                    cross_attention_precision,
                ),
                dropout,
                feedforward_dropout=dropout,
                kernel=kernel,
            )
            for _ in range(num_layers)
        ]
        super().__init__(layers, embed_dim, True, use_act_checkpoint)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)


class SamplingDecoder(Decoder):
    """RepDETR3D's: queries sample the image at projected points, and there is no norm at the end.

    Args:
        embed_dim, num_heads, feedforward_dim, dropout, feedforward_dropout, kernel: see
            `DecoderLayer`. Quirk: the released weights have 1024 and 0, whatever their
            configuration says.
        num_layers: L.
        num_levels, num_points, num_groups: see `CameraSampling`.
        sampling_kernel: see `ops.deformable_aggregation`.
        use_act_checkpoint: recompute each layer in the backward pass.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        feedforward_dim: int = 1024,
        num_layers: int = 6,
        num_levels: int = 4,
        num_points: int = 13,
        num_groups: int = 8,
        dropout: float = 0.1,
        feedforward_dropout: float = 0.0,
        kernel: str = "sdpa",
        sampling_kernel: str = "grid_sample",
        use_act_checkpoint: bool = False,
    ) -> None:
        layers = [
            DecoderLayer(
                embed_dim,
                num_heads,
                feedforward_dim,
                CameraSampling(
                    embed_dim, num_groups, num_levels, num_points, kernel=sampling_kernel
                ),
                dropout,
                feedforward_dropout,
                kernel,
            )
            for _ in range(num_layers)
        ]
        super().__init__(layers, embed_dim, False, use_act_checkpoint)
        self.sampling_kernel = sampling_kernel
