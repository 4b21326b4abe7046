"""Small geometric functions shared by the memory, the heads and the losses.

Matrices a_to_b map column vectors of frame a to frame b.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-5


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logits of x, of any shape, with x and 1 - x clamped to at least 1e-5: within +-11.513."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=_EPS) / (1 - x).clamp(min=_EPS))


# Products of geometry are multiplied and summed here, and nowhere else. A matrix product may be
# rounded: by TF32 on a GPU (`torch.set_float32_matmul_precision`, or an environment variable that
# containers set), by bfloat16 on a CPU, by autocast. With 10 bits, 50 m are known to 5 cm.


def matrix_product(a: Tensor, b: Tensor) -> Tensor:
    """The matrices a (..., n, k) times b (..., k, m), in the precision of their dtype."""
    return (a[..., None] * b[..., None, :, :]).sum(-2)  # (..., n, k, m) -> (..., n, m)


def transform_vectors(vectors: Tensor, a_to_b: Tensor) -> Tensor:
    """Directions (..., M, 3) of frame a in frame b, by the linear part of a_to_b (..., 4, 4)."""
    return (a_to_b[..., None, :3, :3] * vectors[..., None, :]).sum(-1)


def transform_points(points: Tensor, a_to_b: Tensor) -> Tensor:
    """Points (..., M, 3) of frame a in frame b, by the affine a_to_b (..., 4, 4).

    The leading dimensions broadcast; where one of the two is float64, so is the result.
    """
    return transform_vectors(points, a_to_b) + a_to_b[..., None, :3, 3]


def image_to_lidar_of(lidar_to_image: Tensor) -> Tensor:
    """The inverses, float64, of (..., 4, 4): they map (u d, v d, d, 1) to the point at depth d."""
    # Not torch.inverse, which waits for the device to check. A singular matrix shows in numbers
    # that are not finite. In float64, because a library may invert by rounded products.
    inverse, _ = torch.linalg.inv_ex(lidar_to_image.double())
    return inverse


def normalize_to_range(points: Tensor, limits: Tensor) -> Tensor:
    """Points (..., 3) in metres as fractions of a box, not clamped.

    `limits` (6,) are x y z minimum, then x y z maximum, in metres.
    """
    return (points - limits[:3]) / (limits[3:] - limits[:3])


def denormalize_from_range(points: Tensor, limits: Tensor) -> Tensor:
    """Inverse of `normalize_to_range`."""
    return points * (limits[3:] - limits[:3]) + limits[:3]


def gather_tokens(values: Tensor, indexes: Tensor | None) -> Tensor:
    """Selects entries (B, K, ...) of `values` (B, T, ...) by int64 indexes (B, K); None for all."""
    if indexes is None:
        return values
    batch = torch.arange(len(values), device=values.device)[:, None]  # (B, 1), beside (B, K)
    return values[batch, indexes]


def token_centers(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """(height * width, 2) float32: pixels (u, v) of the centres of feature cells, row by row."""
    u = torch.arange(width, device=device, dtype=torch.float32) * stride + stride // 2
    v = torch.arange(height, device=device, dtype=torch.float32) * stride + stride // 2
    grid_v, grid_u = torch.meshgrid(v, u, indexing="ij")
    return torch.stack((grid_u, grid_v), dim=-1).flatten(0, 1)  # (h, w, 2) -> (h * w, 2)
