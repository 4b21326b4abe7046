"""Between the frame that the weights were trained in and the one that a vehicle's program uses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from streampetr_vit.modeling.ops.geometry import matrix_product, transform_points


class Mounting(nn.Module):
    """Where the lidar frame of the weights is on the vehicle, as a constant of a graph.

    Args:
        lidar_to_outer: (4, 4) float64, rigid; the outer frame is that of the graph's inputs and
            outputs. The identity if this is the lidar frame itself.
    """

    lidar_to_outer: Tensor
    outer_to_lidar: Tensor

    def __init__(self, lidar_to_outer: np.ndarray) -> None:
        super().__init__()
        forward, back = (
            torch.from_numpy(lidar_to_outer),
            torch.from_numpy(np.linalg.inv(lidar_to_outer)),
        )
        self.is_identity = bool((lidar_to_outer == np.eye(4)).all())
        self.register_buffer("lidar_to_outer", forward.float(), persistent=False)
        self.register_buffer("outer_to_lidar", back.float(), persistent=False)

    def to_lidar(self, to_outer: Tensor) -> Tensor:
        """Matrices (..., 4, 4) to the outer frame, as matrices to the lidar frame."""
        return to_outer if self.is_identity else matrix_product(self.outer_to_lidar, to_outer)

    def from_lidar(self, from_outer: Tensor) -> Tensor:
        """Matrices (..., 4, 4) from the outer frame, as matrices from the lidar frame."""
        return from_outer if self.is_identity else matrix_product(from_outer, self.lidar_to_outer)

    def codes_to_outer(self, codes: Tensor) -> Tensor:
        """Box codes (..., Q, 10) of the lidar frame in the outer frame, see `box_coding`.

        Centres by the whole matrix; headings and velocities by its yaw alone: a lidar is mounted
        nearly level, and boxes have no tilt.
        """
        if self.is_identity:
            return codes
        center, size, sin, cos, velocity = codes.split([3, 3, 1, 1, 2], dim=-1)
        center = transform_points(center, self.lidar_to_outer)
        # The first column is where the lidar's x axis points.
        c, s = self._yaw.unbind()
        vx, vy = velocity.split([1, 1], dim=-1)
        turned = (sin * c + cos * s, cos * c - sin * s, vx * c - vy * s, vx * s + vy * c)
        return torch.cat((center, size, *turned), dim=-1)

    @property
    def _yaw(self) -> Tensor:
        """(2,) cosine and sine of the yaw of the lidar frame in the outer frame."""
        ahead = self.lidar_to_outer[:2, 0]
        return ahead / ahead.norm()
