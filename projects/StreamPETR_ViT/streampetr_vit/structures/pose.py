"""Rigid poses of the data path, in float64 until a network asks for float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor


@dataclass(frozen=True)
class Pose:
    """A rigid transform that maps points of frame `a` to frame `b`, as nuScenes stores it.

    Attributes:
        translation_m: (3,) float64, origin of `a` in `b`.
        rotation_wxyz: (4,) float64 quaternion (w, x, y, z), not necessarily of unit length.
    """

    translation_m: np.ndarray
    rotation_wxyz: np.ndarray

    @staticmethod
    def of_row(row: Sequence[float] | np.ndarray) -> Pose:
        """From (x, y, z, qw, qx, qy, qz)."""
        values = np.asarray(row, dtype=np.float64)
        return Pose(values[:3], values[3:])

    @staticmethod
    def of_matrix(matrix: np.ndarray) -> Pose:
        """From a 4x4 matrix for column vectors."""
        x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
        return Pose(np.array(matrix[:3, 3], dtype=np.float64), np.array([w, x, y, z]))

    def matrix(self) -> np.ndarray:
        """The 4x4 float64 matrix, for column vectors."""
        return self._matrix.copy()

    def inverse_matrix(self) -> np.ndarray:
        """The inverse of `matrix`."""
        # By the transpose: a general inverse is less exact, and starts the threads of its library.
        matrix = self.matrix()
        inverse = np.eye(4)
        inverse[:3, :3] = matrix[:3, :3].T
        inverse[:3, 3] = -(matrix[:3, :3].T @ matrix[:3, 3])
        return inverse

    def rotation(self) -> Rotation:
        """The rotation part."""
        return self._rotation

    # A camera's pose is asked for in each of its frames.
    @cached_property
    def _rotation(self) -> Rotation:
        return rotation_of(self.rotation_wxyz)

    @cached_property
    def _matrix(self) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation().as_matrix()
        matrix[:3, 3] = self.translation_m
        return matrix

    def __reduce__(self) -> tuple[Any, ...]:
        # What was computed stays here: samples travel from a loader's processes.
        return Pose, (self.translation_m, self.rotation_wxyz)


def rotation_of(wxyz: np.ndarray) -> Rotation:
    """The rotations of (..., 4) quaternions (w, x, y, z), which it normalises."""
    return Rotation.from_quat(np.asarray(wxyz)[..., [1, 2, 3, 0]])  # scipy has w last


def invert_rigid(matrix: Tensor) -> Tensor:
    """Inverts matrices (..., 4, 4), of any float dtype, with an orthonormal rotation part."""
    # [R t]^-1 = [R^T, -R^T t]: no general inverse, which is less exact.
    rotation_t = matrix[..., :3, :3].transpose(-1, -2)
    # R^T t multiplied and summed: a matrix product may be rounded, see `modeling.ops.geometry`.
    offset = -(matrix[..., :3, :3] * matrix[..., :3, 3:]).sum(-2)
    return affine(rotation_t, offset)


def affine(linear: Tensor, offset: Tensor) -> Tensor:
    """Matrices (..., 4, 4) that map x to `linear` (..., 3, 3) times x plus `offset` (..., 3)."""
    top = torch.cat((linear, offset[..., None]), dim=-1)  # (..., 3, 4)
    last_row = torch.eye(4, dtype=top.dtype, device=top.device)[3:].expand(*top.shape[:-2], 1, 4)
    return torch.cat((top, last_row), dim=-2)
