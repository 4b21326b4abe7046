"""An optional aid for small models: look first where a reference point projects.

Not part of the published model. It is a logit bias without parameters, so weights are unaffected.
Shape letters: B streams, N cameras, Q queries, T tokens of one camera.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streampetr_vit.modeling.ops.geometry import transform_points

_MIN_DEPTH_M = 0.1


def projection_bias(
    points_m: Tensor, lidar_to_image: Tensor, pixels: Tensor, sigma_px: float, floor: float = -8.0
) -> Tensor:
    """Gaussian bias around the projection of each point, for the cross-attention logits.

    Args:
        points_m: (B, Q, 3) in the lidar frame.
        lidar_to_image: (B, N, 4, 4).
        pixels: (T, 2) pixel centres of the tokens.
        floor: smallest bias.

    Returns:
        (B, Q, N * T) float32, without gradient.
    """
    with torch.no_grad():
        projected = transform_points(points_m[:, None], lidar_to_image)  # (B, N, Q, 3)
        projected = projected.transpose(1, 2)  # (B, Q, N, 3)
        depth = projected[..., 2:]  # (B, Q, N, 1)
        uv = projected[..., :2] / depth.clamp(min=_MIN_DEPTH_M)
        # |uv - pixel|^2 by its axes: the tokens form a grid, but this form needs no grid.
        squared = (uv[..., None, :] - pixels).square().sum(-1)  # (B, Q, N, T)
        bias = (squared / (-2 * sigma_px**2)).clamp(min=floor)
        # A point that no camera sees has the same bias everywhere, which softmax ignores.
        bias = torch.where(depth > _MIN_DEPTH_M, bias, floor)
        return bias.flatten(2)  # (B, Q, N, T) -> (B, Q, N * T)
