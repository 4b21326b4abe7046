"""Poses that people write down, checked before any arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from streampetr_vit.errors import InputError
from streampetr_vit.structures.pose import Pose
from streampetr_vit.texts import shown

FARTHEST_M = 1e8  # from the origin of the world: beyond any map, 100,000 km
# Of rotations, whose entries are at most 1: calibrations have 4 digits or more.
ROTATION_TOLERANCE = 1e-3


def as_pose(value: Any, what: str) -> Pose:
    """The pose that a `Pose` or a 4x4 matrix says, after a check that it can be one.

    Args:
        value: what was given.
        what: it is, for messages: "camera_to_vehicle of camera front".

    Raises:
        InputError: it is no rigid transform of finite numbers; names `what`, the value and the fix.
    """
    if isinstance(value, Pose):
        # Copies: the caller may write its next pose into the same arrays.
        place, turn = (_array(v) for v in (value.translation_m, value.rotation_wxyz))
        if place.shape != (3,) or turn.shape != (4,):
            raise InputError(
                f"{what} is a Pose with translation_m of shape {place.shape} and rotation_wxyz of "
                f"shape {turn.shape}: give 3 and 4 numbers"
            )
        return _checked(Pose(place, turn), what)
    matrix = _array(value)
    if matrix.shape != (4, 4):
        given = f"of shape {matrix.shape}" if matrix.size else shown(value)
        raise InputError(f"{what} is {given}: give a 4x4 matrix, or a Pose")
    if not np.isfinite(matrix).all():
        raise InputError(f"{what} has NaN or infinite numbers: {short(matrix)}; give finite ones")
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-9:
        fix = "give the matrix for column vectors, with the translation in its last column"
        raise InputError(f"{what} has the last row {short(matrix[3])}, not 0 0 0 1: {fix}")
    turn = matrix[:3, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > ROTATION_TOLERANCE:
        raise InputError(
            f"{what} has the upper left {short(turn)}, which is no rotation: its rows must be of "
            "length 1 and at right angles; leave out scale and intrinsics, and give 4 digits or "
            "more"
        )
    if np.linalg.det(turn) < 0:
        raise InputError(
            f"{what} has the upper left {short(turn)}, a mirror image and no rotation: one axis "
            "points the wrong way (x right, y down, z forward for cameras; x forward, y left, z up "
            "for vehicles)"
        )
    return _checked(Pose.of_matrix(matrix), what)


def _array(value: Any) -> np.ndarray:
    """A copy as float64; nothing of what holds no numbers."""
    try:
        return np.array(value, dtype=np.float64)
    # A torch tensor with gradients is a RuntimeError.
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return np.empty(0)


def _checked(pose: Pose, what: str) -> Pose:
    numbers = np.concatenate((pose.translation_m, pose.rotation_wxyz))
    if not np.isfinite(numbers).all():
        raise InputError(f"{what} has NaN or infinite numbers: {short(numbers)}; give finite ones")
    length = float(np.linalg.norm(pose.rotation_wxyz))
    if abs(length - 1) > ROTATION_TOLERANCE:
        raise InputError(
            f"{what} has the quaternion {short(pose.rotation_wxyz)} of length {length:.4g}: give "
            "a unit quaternion w, x, y, z"
        )
    if np.abs(pose.translation_m).max() > FARTHEST_M:
        raise InputError(f"{what} has the translation {short(pose.translation_m)}: give metres")
    return pose


def short(values: np.ndarray) -> str:
    """Numbers for a message, of 4 digits."""
    return " ".join(f"{value:.4g}" for value in np.ravel(values))
