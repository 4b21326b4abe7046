"""Cameras inside an exported graph, by plain operators in float32.

ONNX has no inverse of a matrix, and the head of Autoware's node is not told where the cameras are.

Shape letters: N cameras, T tokens of one camera.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streampetr_vit.modeling.ops.geometry import denormalize_from_range, matrix_product
from streampetr_vit.structures.pose import affine, invert_rigid


def invert_projection(image_to_lidar: Tensor) -> Tensor:
    """(..., 4, 4) lidar_to_image of affine matrices that map d (u, v, 1) to the point at depth d.

    By cross products of its columns. These are the picture's axes in space, which are nearly
    perpendicular to each other, so that float32 loses no digits.
    """
    x, y, z = image_to_lidar[..., :3, :3].unbind(-1)  # columns, (..., 3) each
    rows = torch.stack((_cross(y, z), _cross(z, x), _cross(x, y)), dim=-2)  # (..., 3, 3)
    linear = rows / (x * rows[..., 0, :]).sum(-1)[..., None, None]  # by the determinant
    offset = -(linear * image_to_lidar[..., None, :3, 3]).sum(-1)  # (..., 3)
    return affine(linear, offset)


def lidar_to_camera(image_to_lidar: Tensor, intrinsics: Tensor) -> Tensor:
    """(..., 4, 4) rigid poses: the inverse of image_to_lidar times the camera matrices."""
    return invert_rigid(matrix_product(image_to_lidar, intrinsics))


class ConeCameras(torch.nn.Module):
    """Reads the cameras off the cone code of their tokens.

    The code has two points on the ray of each token, at known depths: the ray goes through
    origin + depth (u a + v b + c), where a, b, c are the columns of image_to_lidar. So the mean
    over the tokens gives the origin, and least squares in u and v the columns.

    Args:
        pixels: (T, 2) float32 pixel centres of the tokens of one camera, which form a grid.
        inner_depth_m, last_depth_m: of the two points.
        position_range: (6,) metres, that the points are fractions of.
    """

    fit: Tensor
    position_range: Tensor

    def __init__(
        self,
        pixels: Tensor,
        inner_depth_m: float,
        last_depth_m: float,
        position_range: Tensor,
    ) -> None:
        super().__init__()
        self.inner_depth_m, self.span_m = inner_depth_m, last_depth_m - inner_depth_m
        homogeneous = torch.cat((pixels, torch.ones_like(pixels[:, :1])), dim=1)  # (T, 3)
        # (3, T): of a value at each token, the factors of u, v and 1 that fit it best
        fit = torch.linalg.pinv(homogeneous.double()).float()
        self.register_buffer("fit", fit, persistent=False)
        self.register_buffer("position_range", position_range.clone(), persistent=False)

    def forward(self, cone: Tensor, cameras: int) -> Tensor:
        """Cone codes (1, N * T, 8) to image_to_lidar (1, N, 4, 4)."""
        # |fx|, |fy|, last point, inner point
        points = cone[..., 2:].unflatten(1, (cameras, -1)).unflatten(-1, (2, 3))  # (1, N, T, 2, 3)
        points = denormalize_from_range(points, self.position_range)
        last, inner = points.unbind(-2)  # (1, N, T, 3)
        direction = (last - inner) / self.span_m
        origin = (inner - self.inner_depth_m * direction).mean(-2)  # (1, N, 3)
        # (3, T, 1) by (1, N, 1, T, 3) -> (1, N, 3, 3): a, b, c in rows
        columns = (self.fit[..., None] * direction[..., None, :, :]).sum(-2)
        return affine(columns.transpose(-1, -2), origin)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """The cross products of vectors (..., 3); ONNX has no operator for them."""
    (a0, a1, a2), (b0, b1, b2) = a.unbind(-1), b.unbind(-1)
    return torch.stack((a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0), dim=-1)
