"""Joins the queries of this frame with those of the memory, aware of motion and time.

Shape letters: B streams, Q queries, M memory entries, P propagated entries, E channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streampetr_vit.modeling.ops.encodings import encode_points, fourier_encoding, sine_encoding
from streampetr_vit.modeling.ops.geometry import normalize_to_range
from streampetr_vit.modeling.ops.linear import Linear
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.modeling.temporal.motion_layer_norm import MotionLayerNorm

_MOTION_DIM = 15  # velocity 2, age 1, pose 3 x 4
_OCTAVES = 6


@dataclass(frozen=True)
class AlignedQueries:
    """What the decoder gets.

    Attributes:
        content, position: (B, Q + P, E), the queries of this frame, then the propagated ones.
        reference_points: (B, Q + P, 3), fractions of the point cloud range, not clamped.
        memory_content, memory_position: (B, M - P, E), keys and values of the self-attention only.
    """

    content: Tensor
    position: Tensor
    reference_points: Tensor
    memory_content: Tensor
    memory_position: Tensor


class TemporalAlignment(nn.Module):
    """Position, motion and time codes of queries and memory entries.

    Args:
        point_cloud_range: x y z minimum and maximum in metres.
        num_propagated: memory entries P that become queries of this frame.
        with_ego_pose: modulate queries and memory by their motion (all released models do).
        with_time: add a code of their age.
    """

    point_cloud_range: Tensor

    def __init__(
        self,
        embed_dim: int,
        point_cloud_range: tuple[float, ...],
        num_propagated: int,
        with_ego_pose: bool = True,
        with_time: bool = True,
    ) -> None:
        super().__init__()
        dim, code_dim = embed_dim, 2 * _OCTAVES * _MOTION_DIM
        self.embed_dim, self.num_propagated = embed_dim, num_propagated
        self.register_buffer("point_cloud_range", torch.tensor(point_cloud_range), persistent=False)
        self.query_embed = nn.Sequential(Linear(dim // 2 * 3, dim), nn.ReLU(), Linear(dim, dim))
        self.time_embed = nn.Sequential(Linear(dim, dim), nn.LayerNorm(dim)) if with_time else None
        self.motion_position = MotionLayerNorm(code_dim, dim) if with_ego_pose else None
        self.motion_content = MotionLayerNorm(code_dim, dim) if with_ego_pose else None

    def embed_points(self, points: Tensor) -> Tensor:
        """Position embedding (..., E) of points (..., 3) given as fractions of the range."""
        return self.query_embed(encode_points(points, self.embed_dim // 2))

    def _add_time(self, position: Tensor, time_s: Tensor) -> Tensor:
        """Adds the code of (B, n, 1) ages to (B, n, E) positions."""
        if self.time_embed is None:
            return position
        # Made in the ages' float64, then cast: a code of high frequencies shows a rounded age.
        return position + self.time_embed(sine_encoding(time_s[..., 0], self.embed_dim).float())

    def _modulate(self, content: Tensor, position: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
        if self.motion_content is None or self.motion_position is None:
            return content, position
        code = fourier_encoding(motion, _OCTAVES)
        return self.motion_content(content, code), self.motion_position(position, code)

    def forward(
        self, content: Tensor, position: Tensor, reference_points: Tensor, memory: TemporalMemory
    ) -> AlignedQueries:
        """Joins (B, Q, ...) queries of this frame with a memory in the current lidar frame.

        `reference_points` are fractions of the point cloud range.
        """
        # The queries of this frame pass through the same layers as remembered ones, with age 0, no
        # speed and the identity as pose.
        now = memory.time_s.new_zeros(1, 1, 1)
        still = torch.cat((content.new_zeros(3), torch.eye(4, device=content.device)[:3].flatten()))
        content, position = self._modulate(content, position, still)
        position = self._add_time(position, now)

        memory_points = normalize_to_range(memory.center_m, self.point_cloud_range)
        motion = torch.cat(
            (memory.velocity_mps, memory.time_s, memory.pose[:, :, :3].flatten(2)), dim=-1
        ).float()  # 2 + 1 + 12 -> (B, M, 15); joined in float64, which the ages have
        memory_content, memory_position = self._modulate(
            memory.embedding, self.embed_points(memory_points), motion
        )
        memory_position = self._add_time(memory_position, memory.time_s)

        # The newest P entries come first: they are queries again, the others only keys and values.
        count = self.num_propagated
        return AlignedQueries(
            content=torch.cat((content, memory_content[:, :count]), dim=1),
            position=torch.cat((position, memory_position[:, :count]), dim=1),
            reference_points=torch.cat((reference_points, memory_points[:, :count]), dim=1),
            memory_content=memory_content[:, count:],
            memory_position=memory_position[:, count:],
        )
