"""From the lidar frame of the weights to the frame that the graphs speak of, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from streampetr_vit.modeling.ops.geometry import matrix_product, transform_points


class Mounting(nn.Module):
    """Where the lidar frame of the weights is on the vehicle, as a constant of a graph.

    Args:
        lidar_to_graph: (4, 4) float64, rigid; the graph frame is that of the graph's inputs and
            outputs. The identity if that is the lidar frame itself.
    """

    lidar_to_graph: Tensor
    graph_to_lidar: Tensor

    def __init__(self, lidar_to_graph: np.ndarray) -> None:
        super().__init__()
        self.is_identity = bool((lidar_to_graph == np.eye(4)).all())
        for name, matrix in (
            ("lidar_to_graph", lidar_to_graph),
            ("graph_to_lidar", np.linalg.inv(lidar_to_graph)),
        ):
            self.register_buffer(name, torch.from_numpy(matrix).float(), persistent=False)

    def to_lidar(self, to_graph: Tensor) -> Tensor:
        """Matrices (..., 4, 4) to the graph frame, as matrices to the lidar frame."""
        return to_graph if self.is_identity else matrix_product(self.graph_to_lidar, to_graph)

    def from_lidar(self, from_graph: Tensor) -> Tensor:
        """Matrices (..., 4, 4) from the graph frame, as matrices from the lidar frame."""
        return from_graph if self.is_identity else matrix_product(from_graph, self.lidar_to_graph)

    def codes_to_graph(self, codes: Tensor) -> Tensor:
        """Box codes (..., Q, 10) of the lidar frame in the graph's frame, see `moved_codes`."""
        if self.is_identity:
            return codes
        return moved_codes(codes, self.lidar_to_graph, *yaw_of(self.lidar_to_graph))


def yaw_of(matrix: Tensor) -> tuple[Tensor, ...]:
    """Cosine and sine of the yaw of a pose (4, 4)."""
    ahead = matrix[:2, 0]  # where the x axis points
    return (ahead / ahead.norm()).unbind()


def moved_codes(codes: Tensor, a_to_b: Tensor, cos_yaw: Tensor, sin_yaw: Tensor) -> Tensor:
    """Box codes (..., Q, 10) of frame a in frame b, see `box_coding`.

    Centres by the whole matrix; headings and velocities by a yaw alone: a lidar is mounted nearly
    level, and boxes have no tilt.

    Args:
        a_to_b: (4, 4).
        cos_yaw, sin_yaw: of the yaw by which headings turn.
    """
    center, size, sin, cos, velocity = codes.split([3, 3, 1, 1, 2], dim=-1)
    center = transform_points(center, a_to_b).to(codes.dtype)
    vx, vy = velocity.split([1, 1], dim=-1)
    c, s = cos_yaw, sin_yaw
    turned = (sin * c + cos * s, cos * c - sin * s, vx * c - vy * s, vx * s + vy * c)
    return torch.cat((center, size, *turned), dim=-1)
