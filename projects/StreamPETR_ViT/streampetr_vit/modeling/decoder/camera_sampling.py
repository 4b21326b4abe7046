"""RepDETR3D's cross-attention: each query reads image features at learned points around it.

The points are offsets in metres that a query's content gives; no box size enters.

Shape letters: B streams, N cameras, Q queries, P points of a query, L pyramid levels, G groups of
channels, E channels, h w height and width of a level's map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.ops.deformable_aggregation import KERNELS, deformable_aggregation
from streampetr_vit.modeling.ops.geometry import transform_points
from streampetr_vit.modeling.ops.linear import Linear, linear

# Least depth that is divided by. Points behind a camera get it, and land far outside the picture.
_MIN_DEPTH_M = 1e-5
# Metres, or pixels times metres, that no scene reaches and that leave float32 room for divisions.
_FARTHEST = 1e15
# The rows of lidar_to_image that project: 3 x 4 numbers tell a camera from the others.
_PROJECTION_ENTRIES = 12


@dataclass(frozen=True)
class CameraMaps:
    """What queries sample from, and where it is.

    Attributes:
        maps: L tensors (B, N, E, h, w) float32. Each spans the whole padded picture, whatever its
            stride (quirk: also where the stride does not divide the picture's side).
        lidar_to_image: (B, N, 4, 4) float32, metres to pixels times depth of the padded picture.
        image_size: height and width of the padded pictures in pixels.
    """

    maps: list[Tensor]
    lidar_to_image: Tensor
    image_size: tuple[int, int]


class CameraSampling(nn.Module):
    """Samples the pyramids of all cameras at learned points around each query.

    Any number of cameras; they have no weights of their own.

    Args:
        embed_dim: channels E of queries and maps.
        num_groups: G; divides E. Each group of channels has weights of its own.
        num_levels, num_points: L and P.
        point_spread_m: the points' first offsets are uniform within +- this, in each axis.
        max_queries, kernel: see `ops.deformable_aggregation.deformable_aggregation`.
    """

    def __init__(
        self,
        embed_dim: int,
        num_groups: int = 8,
        num_levels: int = 4,
        num_points: int = 13,
        point_spread_m: float = 2.0,
        max_queries: int | None = None,
        kernel: str = "grid_sample",
    ) -> None:
        super().__init__()
        if embed_dim % num_groups:
            raise ValueError(f"num_groups ({num_groups}) must divide embed_dim ({embed_dim})")
        if kernel not in KERNELS:
            raise ValueError(f"kernel {kernel!r} is unknown; use one of {sorted(KERNELS)}")
        self.num_groups, self.num_levels, self.num_points = num_groups, num_levels, num_points
        self.point_spread_m, self.max_queries, self.kernel = point_spread_m, max_queries, kernel
        self.weights = Linear(embed_dim, num_levels * num_points * num_groups)
        self.output = Linear(embed_dim, embed_dim)
        self.points = Linear(embed_dim, num_points * 3)
        self.camera_embed = nn.Sequential(
            Linear(_PROJECTION_ENTRIES, embed_dim // 2),
            nn.ReLU(),
            Linear(embed_dim // 2, embed_dim),
            nn.ReLU(),
            nn.LayerNorm(embed_dim),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """First values: equal weights everywhere, points spread around the query.

        Biases that are not set here keep what the layers drew. Source: section 3.6.
        """
        for layer in self.modules():
            # Over what was drawn: attention and projections alike.
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        nn.init.zeros_(self.output.bias)
        nn.init.uniform_(self.points.bias, -self.point_spread_m, self.point_spread_m)

    def forward(
        self, content: Tensor, position: Tensor, reference_points_m: Tensor, image: CameraMaps
    ) -> Tensor:
        """Image features for each query, in float32 under any ambient autocast.

        Args:
            content, position: (B, Q, E) of the queries; only the content moves the points.
            reference_points_m: (B, Q, 3) metres, lidar frame; what is not finite sees nothing.

        Returns:
            (B, Q, E); the output layer's bias where no camera sees any point.

        Raises:
            InputError: the number of levels does not fit.
            ValueError: another shape does not fit.
        """
        if len(image.maps) != self.num_levels:
            raise InputError(
                f"image.maps has {len(image.maps)} levels, this module was made for "
                f"num_levels = {self.num_levels}"
            )
        # lidar_to_image, pixels times metres, goes through layers: too large for half precision.
        with torch.autocast(content.device.type, enabled=False):
            points_m = self.key_points_m(content, reference_points_m)
            locations = project(points_m, image.lidar_to_image, image.image_size)
            weights = self.sampling_weights(content + position, image.lidar_to_image)
            features = deformable_aggregation(
                image.maps, locations, weights, max_queries=self.max_queries, kernel=self.kernel
            )
            return self.output(features)

    def key_points_m(self, content: Tensor, reference_points_m: Tensor) -> Tensor:
        """The points of each query: (B, Q, P, 3) metres, lidar frame."""
        offsets = self.points(content).unflatten(-1, (self.num_points, 3))  # (B, Q, P, 3)
        return reference_points_m[:, :, None] + offsets

    def sampling_weights(self, query: Tensor, lidar_to_image: Tensor) -> Tensor:
        """(B, Q, N, L, P, G) weights, which sum to 1 over cameras, levels and points together.

        The query (B, Q, E) is content plus position; the entries of lidar_to_image (B, N, 4, 4) are
        used as they are.
        """
        cameras = self.camera_embed(lidar_to_image[:, :, :3].flatten(2))  # (B, N, 12) -> (B, N, E)
        # The layer is linear: once for the queries and once for the cameras, not for each pair.
        of_queries = linear(query, self.weights.weight)[:, :, None]
        logits = of_queries + self.weights(cameras)[:, None]  # (B, Q, N, L * P * G)
        # (B, Q, N, L * P * G) -> (B, Q, N, L * P, G)
        logits = logits.unflatten(-1, (self.num_levels * self.num_points, self.num_groups))
        # One softmax over N * L * P: unseen points get their share too, there is no mask.
        weights = logits.flatten(2, 3).softmax(2).view_as(logits)
        return weights.unflatten(3, (self.num_levels, self.num_points))  # (B, Q, N, L, P, G)


def project(points_m: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Where points (B, Q, P, 3), metres in the lidar frame, fall in each camera's picture.

    Returns:
        (B, N, Q, P, 2) x, y as fractions of width and height; finite, with finite gradients. Points
        behind a camera are anywhere outside.
    """
    height, width = image_size
    # (B, 1, Q, P, 3) by (B, N, 1, 4, 4) -> (B, N, Q, P, 3), pixels times depth
    scaled = transform_points(points_m[:, None], lidar_to_image[:, :, None])
    # Points at infinity, or NaN, are replaced before the division, or its gradient would be NaN.
    near = (scaled.abs() < _FARTHEST).all(-1, keepdim=True)
    scaled = torch.where(near, scaled, 0.0)  # (B, N, Q, P, 3)
    pixels = scaled[..., :2] / scaled[..., 2:].clamp(min=_MIN_DEPTH_M)
    fractions = torch.stack((pixels[..., 0] / width, pixels[..., 1] / height), dim=-1)
    return torch.where(near, fractions, -1.0)
