"""The decoder: hybrid self-attention over queries and memory, then a look at the image.

How a query looks at the image is a module of its own: attention to all tokens (StreamPETR), or
sampling at projected points (RepDETR3D, `camera_sampling`).

Shape letters: B streams, Q queries, K' further keys, L layers, E channels, h heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from streampetr_vit.modeling.decoder.attention import MultiHeadAttention, TokenAttention
from streampetr_vit.modeling.decoder.camera_sampling import CameraSampling
from streampetr_vit.modeling.ops.linear import Linear


class DecoderLayer(nn.Module):
    """Post-norm layer: self-attention with memory, a look at the image, feed-forward.

    Args:
        embed_dim, num_heads: E and h.
        feedforward_dim: hidden channels of the feed-forward network.
        cross_attention: maps content, position, points in metres and the image to the update of the
            queries.
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


class Decoder(nn.Module):
    """A stack of layers.

    Args:
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
        last_only: bool = False,
    ) -> Tensor:
        """Decodes queries.

        Args:
            content, position: (B, Q, E) of the queries.
            image: what the layers' cross-attention looks at.
            points_m: (B, Q, 3) reference points of the queries in metres, lidar frame.
            memory_content, memory_position: (B, K', E), further keys of the self-attention.
            blocked: (Q, Q + K') bool for the self-attention, True = may not attend.
            last_only: give the last layer's output alone, (1, B, Q, E).

        Returns:
            (L, B, Q, E): every layer's output.
        """
        outputs = []
        shared = (position, image, points_m, memory_content, memory_position, blocked)
        for layer in self.layers:
            # All layers see the same positions and memory: only the content changes.
            if self.use_act_checkpoint and self.training:
                content = checkpoint(layer, content, *shared, use_reentrant=False)
            else:
                content = layer(content, *shared)
            if layer is self.layers[-1] or not last_only:
                outputs.append(self.post_norm(content))
        return torch.stack(outputs)  # L times (B, Q, E) -> (L, B, Q, E)


class TemporalDecoder(Decoder):
    """StreamPETR's: attention to all image tokens, and a norm at the end.

    For what is not named here see `DecoderLayer` and `Decoder`.

    Args:
        cross_attention_dropout, cross_attention_precision: see `MultiHeadAttention`. The published
            training and evaluation used "fp16".
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        feedforward_dim: int = 2048,
        num_layers: int = 6,
        dropout: float = 0.1,
        # Quirk: 0 in the published training, whose fused kernel ignored the configured 0.1.
        cross_attention_dropout: float = 0.0,
        cross_attention_precision: str = "float32",
        kernel: str = "sdpa",
        use_act_checkpoint: bool = False,
    ) -> None:
        widths, layers = (embed_dim, num_heads, feedforward_dim), []
        for _ in range(num_layers):
            look = TokenAttention(
                embed_dim, num_heads, cross_attention_dropout, kernel, cross_attention_precision
            )
            layers.append(DecoderLayer(*widths, look, dropout, dropout, kernel))
        super().__init__(layers, embed_dim, True, use_act_checkpoint)
        # Over what the layers drew: all linear layers, cross-attention and biases included.
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)


class SamplingDecoder(Decoder):
    """RepDETR3D's: queries sample the image at projected points, and there is no norm at the end.

    For the arguments see `CameraSampling`, `DecoderLayer` and `Decoder`.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        num_heads: int = 8,
        # Quirk: the released weights have 1024, and a feedforward_dropout of 0, whatever their
        # configuration says.
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
        widths, layers = (embed_dim, num_heads, feedforward_dim), []
        for _ in range(num_layers):
            look = CameraSampling(
                embed_dim, num_groups, num_levels, num_points, kernel=sampling_kernel
            )
            layers.append(DecoderLayer(*widths, look, dropout, feedforward_dropout, kernel))
        super().__init__(layers, embed_dim, False, use_act_checkpoint)
        self.sampling_kernel = sampling_kernel
