"""The 3D position code of image tokens: where in space the ray of a token passes.

Shape letters: B streams, N cameras, T tokens of one camera, D depth bins, E channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streampetr_vit.modeling.ops.geometry import (
    gather_tokens,
    image_to_lidar_of,
    inverse_sigmoid,
    normalize_to_range,
    transform_vectors,
)
from streampetr_vit.modeling.ops.linear import Linear


def depth_bins(count: int, start_m: float, end_m: float, linear_increasing: bool) -> Tensor:
    """Depths at which an image ray is sampled: (D,) float32 metres.

    Args:
        count: number of bins D.
        start_m: first depth.
        end_m: depth that the bin after the last one would have.
        linear_increasing: spacing grows linearly with depth (LID).
    """
    index = torch.arange(count, dtype=torch.float32)
    if linear_increasing:
        return start_m + (end_m - start_m) / (count * (1 + count)) * index * (index + 1)
    return start_m + (end_m - start_m) / count * index


class ImagePositionEncoder(nn.Module):
    """3D position embedding of image tokens.

    Args:
        embed_dim: output channels E.
        position_range: x y z minimum and maximum in metres that normalise the ray points.
        depth_num, depth_start_m, linear_increasing_depth: see `depth_bins`.
        gain: factor on the last layer's initial weight; 1 is the published model.
        tile_intrinsics: Quirk: token j gets the focal lengths of camera j mod N, as the released
            weights were trained.
    """

    depth_bins_m: Tensor
    position_range: Tensor

    def __init__(
        self,
        embed_dim: int,
        position_range: tuple[float, ...],
        depth_num: int = 64,
        depth_start_m: float = 1.0,
        linear_increasing_depth: bool = True,
        gain: float = 1.0,
        tile_intrinsics: bool = True,
    ) -> None:
        super().__init__()
        if depth_num < 30:  # the cone code reads the 30th from the end
            raise ValueError(f"depth_num must be at least 30 (cone code), got {depth_num}")
        bins = depth_bins(depth_num, depth_start_m, position_range[3], linear_increasing_depth)
        self.register_buffer("depth_bins_m", bins)
        self.register_buffer("position_range", torch.tensor(position_range), persistent=False)
        self.tile_intrinsics = tile_intrinsics
        self.mlp = nn.Sequential(
            Linear(depth_num * 3, embed_dim * 4), nn.ReLU(), Linear(embed_dim * 4, embed_dim)
        )
        # Small models that must find their tokens within minutes start with larger position codes.
        with torch.no_grad():
            self.mlp[2].get_parameter("weight").mul_(gain)

    def ray_points(self, lidar_to_image: Tensor, pixels: Tensor) -> Tensor:
        """Points along the ray of every token, as fractions of the position range.

        Args:
            lidar_to_image: (B, N, 4, 4) float32.
            pixels: (T, 2) float32, or (B, N, T, 2), pixel centres of the tokens.

        Returns:
            (B, N * T, 3 * D), xyz innermost; not clamped.
        """
        return self._points(image_to_lidar_of(lidar_to_image).float(), pixels)

    def _points(self, image_to_lidar: Tensor, pixels: Tensor) -> Tensor:
        homogeneous = torch.cat((pixels, torch.ones_like(pixels[..., :1])), dim=-1)
        # d * (u, v, 1) goes to lidar as d * (A (u, v, 1)) + b: one product for all depths.
        direction = transform_vectors(homogeneous, image_to_lidar)  # (B, N, T, 3)
        origin = image_to_lidar[..., None, None, :3, 3]  # (B, N, 1, 1, 3)
        points = self.depth_bins_m[:, None] * direction[..., None, :] + origin  # (B, N, T, D, 3)
        # (B, N, T, D, 3) -> (B, N, T, D * 3) -> (B, N * T, D * 3)
        return normalize_to_range(points, self.position_range).flatten(3).flatten(1, 2)

    @property
    def cone_depths_m(self) -> tuple[float, float]:
        """Depths of the inner and of the last point that the cone code has of a ray."""
        return float(self.depth_bins_m[-30]), float(self.depth_bins_m[-1])

    def cone(self, ray_points: Tensor, intrinsics: Tensor) -> Tensor:
        """Eight numbers that say how a token looks at the world.

        Args:
            ray_points: (B, N * T, 3 * D) from `ray_points`.
            intrinsics: (B, N, 4, 4); after a horizontal flip the focal length is negative.

        Returns:
            (B, N * T, 8): |fx| and |fy| in 1000 pixels, the ray's last point, an inner point.
        """
        cameras, tokens = intrinsics.shape[1], ray_points.shape[1]
        focal = torch.stack((intrinsics[..., 0, 0], intrinsics[..., 1, 1]), -1).abs() / 1e3
        if self.tile_intrinsics:
            focal = focal.repeat(1, tokens // cameras, 1)  # token j: camera j mod N
        else:
            focal = focal.repeat_interleave(tokens // cameras, dim=1)
        # 2 + 3 + 3: the deepest bin, and the 30th from the end
        return torch.cat((focal, ray_points[..., -3:], ray_points[..., -90:-87]), dim=-1)

    def forward(
        self,
        lidar_to_image: Tensor,
        intrinsics: Tensor,
        pixels: Tensor,
        token_indexes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embeds the tokens of all cameras, camera by camera.

        Args:
            lidar_to_image, intrinsics: (B, N, 4, 4) float32.
            pixels: as in `ray_points`.
            token_indexes: (B, K) int64 selects tokens; None keeps all N * T.

        Returns:
            position (B, K, E) and cone (B, K, 8).
        """
        return self.embed(
            image_to_lidar_of(lidar_to_image).float(), intrinsics, pixels, token_indexes
        )

    def embed(
        self,
        image_to_lidar: Tensor,
        intrinsics: Tensor,
        pixels: Tensor,
        token_indexes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, of inverted matrices: image_to_lidar maps d (u, v, 1) to depth d."""
        points = self._points(image_to_lidar, pixels)
        # The cone is made before tokens are chosen: tiling goes by a token's place among all.
        cone = gather_tokens(self.cone(points, intrinsics), token_indexes)
        position = self.mlp(inverse_sigmoid(gather_tokens(points, token_indexes)))
        return position, cone
