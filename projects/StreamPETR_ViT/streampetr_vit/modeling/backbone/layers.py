"""Small layers that the ViT and its feature pyramid are made of.

Shape letters: B images, H W token or feature map, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from streampetr_vit.modeling.backbone.windows import WindowLayout
from streampetr_vit.modeling.ops.linear import linear, padded_linear

# Rows of the MLP's hidden layer that a CPU's cache holds together with the weights they meet. More
# would go through memory, which is slower than the arithmetic.
_ROWS_IN_CACHE = 1024
_ALIGNMENT = 16  # of a matrix's width for the fast products of GPUs in half precision


class PatchEmbed(nn.Module):
    """Cuts images into square patches and projects each to a token."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_chans, H * patch_size, W * patch_size) -> (B, H, W, C)."""
        return self.proj(images).permute(0, 2, 3, 1)  # (B, C, H, W) -> (B, H, W, C)


class SwiGLU(nn.Module):
    """Gated MLP with a norm on the hidden layer: w3(LN(SiLU(w1 x) * w2 x)).

    Source: EVA-02 (arXiv 2303.11331).
    """

    def __init__(self, dim: int, hidden_dim: int, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden_dim)
        self.w2 = nn.Linear(dim, hidden_dim)
        self.ffn_ln = norm_layer(hidden_dim)
        self.w3 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.w3(self.ffn_ln(functional.silu(self.w1(x)) * self.w2(x)))

    def fused(self, x: Tensor) -> Tensor:
        """The same, quicker: (n, C) -> (n, C)."""
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            return torch.cat([self._fused(rows) for rows in x.split(_ROWS_IN_CACHE)])
        # In training the weights themselves, which autocast casts once for all calls and which
        # cost no memory until the backward pass; padded ones are new in each call.
        pads = x.is_cuda and not torch.is_grad_enabled()
        return self._fused(x, _ALIGNMENT if pads else 1)

    def _fused(self, x: Tensor, pad_to: int = 1) -> Tensor:
        """Without copies where there is no gradient; widths padded to a multiple of `pad_to`."""
        gate = padded_linear(x, self.w1.weight, self.w1.bias, pad_to)  # (n, hidden_dim + padding)
        hidden = padded_linear(x, self.w2.weight, self.w2.bias, pad_to)
        if torch.is_grad_enabled():
            hidden = functional.silu(gate) * hidden
        else:  # nobody else reads them: two tensors of this size less
            hidden = functional.silu(gate, inplace=True).mul_(hidden)
        width = self.w3.in_features
        if hidden.shape[-1] == width:
            return linear(self.ffn_ln(hidden), self.w3.weight, self.w3.bias)
        # The padding is zeros, and is none of the norm's business.
        missing = (0, hidden.shape[-1] - width)
        hidden = functional.pad(self.ffn_ln(hidden[..., :width]), missing)
        return linear(hidden, functional.pad(self.w3.weight, missing), self.w3.bias)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole images, in training only.

    Args:
        rate: probability in [0, 1) of dropping; kept branches are divided by 1 - rate.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, layout: WindowLayout | None = None) -> Tensor:
        """Drops images of x, (B, ...), or (n, C) in the window order of `layout`.

        Returns:
            The same shape; float32 at least when a draw is made.
        """
        if not self.training or self.rate == 0.0:
            return x
        # 1 / keep is not representable in bfloat16: a half-precision scale would bias the branch.
        scale_dtype = torch.promote_types(x.dtype, torch.float32)
        images = len(x) if layout is None else layout.batch
        kept = torch.empty(images, dtype=scale_dtype, device=x.device).bernoulli_(1.0 - self.rate)
        kept = kept.div_(1.0 - self.rate)
        if layout is not None:
            kept = kept[layout.image]  # (B,) -> (n,)
        return x * kept.view(-1, *(1,) * (x.dim() - 1))


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels C of every pixel of an NCHW map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        # torch normalises the last dimensions: (B, C, H, W) -> (B, H, W, C) and back
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class BottleneckResidual(nn.Module):
    """Convolutional residual block that ViTDet can put after a transformer block.

    No EVA-02 weights use it. Source: ViTDet (arXiv 2203.16527).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = dim // 2
        self.conv1 = nn.Conv2d(dim, inner, 1, bias=False)
        self.norm1 = LayerNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm2 = LayerNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, dim, 1, bias=False)
        self.norm3 = LayerNorm2d(dim)
        nn.init.zeros_(self.norm3.weight)  # it starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        y = x.permute(0, 3, 1, 2)  # (B, C, H, W) for the convolutions
        y = functional.gelu(self.norm1(self.conv1(y)))
        y = functional.gelu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return x + y.permute(0, 2, 3, 1)  # (B, C, H, W) -> (B, H, W, C)
