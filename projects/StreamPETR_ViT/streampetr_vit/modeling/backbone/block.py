"""A block of the EVA-02 ViT, on a padded map or on tokens in window order.

Shape letters: B images, H W token map, n tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from streampetr_vit.modeling.backbone.layers import BottleneckResidual, DropPath, SwiGLU
from streampetr_vit.modeling.backbone.window_attention import WindowAttention
from streampetr_vit.modeling.backbone.windows import WindowLayout

NormLayer = Callable[[int], nn.Module]


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and a residual around it.

    Args:
        dim: C.
        mlp_ratio: width of the MLP's hidden layer over C (truncated).
        drop_path_rate: probability of dropping either branch for an image.
        residual: append a convolutional bottleneck.
    """

    def __init__(
        self,
        attn: WindowAttention,
        dim: int,
        mlp_ratio: float,
        drop_path_rate: float,
        norm_layer: NormLayer,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = attn
        self.norm2 = norm_layer(dim)
        self.mlp = SwiGLU(dim, int(dim * mlp_ratio), norm_layer)
        self.drop_path = DropPath(drop_path_rate)
        self.residual = BottleneckResidual(dim) if residual else None

    def forward(
        self, x: Tensor, layout: WindowLayout | None = None, kernel: str = "sdpa"
    ) -> Tensor:
        """One block on x, (B, H, W, C), or (n, C) in the window order of `layout`; the same shape.

        Only the attention in window order has a choice of `kernel`.
        """
        if layout is None:  # the specification; what follows computes the same
            x = x + self.drop_path(self.attn(self.norm1(x)))
            x = x + self.drop_path(self.mlp(self.norm2(x)))
            return x if self.residual is None else self.residual(x)
        x = x + self.drop_path(self.attn.attend(self.norm1(x), layout, kernel), layout)
        x = x + self.drop_path(self.mlp.fused(self.norm2(x)), layout)
        # Convolutions need the map.
        return x if self.residual is None else layout.arrange(self.residual(layout.restore(x)))
