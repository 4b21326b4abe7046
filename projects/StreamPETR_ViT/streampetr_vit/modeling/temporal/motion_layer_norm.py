"""Layers whose scale and shift, or gate, depend on a second input."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from streampetr_vit.modeling.ops.linear import Linear


class MotionLayerNorm(nn.Module):
    """Layer norm without affine weights, whose gain and offset come from a condition.

    Source: StreamPETR, section 3.3. Without `use_ln` it starts as the identity (RepDETR3D).
    """

    def __init__(self, condition_dim: int, dim: int, use_ln: bool = True) -> None:
        super().__init__()
        self.use_ln = use_ln
        self.reduce = Linear(condition_dim, dim)
        self.gamma = Linear(dim, dim)
        self.beta = Linear(dim, dim)
        # Gain 1 and offset 0 whatever the condition: it starts as a plain layer norm.
        nn.init.zeros_(self.gamma.weight)
        nn.init.ones_(self.gamma.bias)
        nn.init.zeros_(self.beta.weight)
        nn.init.zeros_(self.beta.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Modulates `x` (..., dim) by `condition` (..., condition_dim); shapes broadcast."""
        return self.modulate(x, *self.coefficients(condition))

    def modulate(self, x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        """Modulates `x` (..., dim) by coefficients that broadcast."""
        if self.use_ln:
            x = F.layer_norm(x, x.shape[-1:])
        return gain * x + offset

    def coefficients(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and offset (..., dim) for a condition (..., condition_dim)."""
        hidden = F.relu(self.reduce(condition))
        return self.gamma(hidden), self.beta(hidden)


class FeatureGate(nn.Module):
    """Multiplies by a sigmoid gate computed from other features (squeeze and excitation)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduce = Linear(dim, dim)
        self.expand = Linear(dim, dim)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Gates `x` (..., dim) by `features` (..., dim)."""
        return x * self.expand(F.relu(self.reduce(features))).sigmoid()
