"""Boxes in the world frame for tests of trackers: of each only what a tracker reads is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampetr_vit.structures import GlobalBoxes, Pose

AT_ORIGIN = Pose.of_matrix(np.eye(4))
Described = tuple[str, float, float, float, float, float]


def boxes_of(*described: Described, token: str = "sample") -> GlobalBoxes:
    """Boxes of (class name, x, y, velocity in x, in y, score)."""
    return boxes_of_columns(
        names=[box[0] for box in described],
        centers_m=np.array([box[1:3] for box in described]).reshape(-1, 2),
        velocities_mps=np.array([box[3:5] for box in described]).reshape(-1, 2),
        scores=np.array([box[5] for box in described], dtype=np.float64),
        token=token,
    )


def boxes_of_columns(
    names: Sequence[str],
    centers_m: np.ndarray,
    velocities_mps: np.ndarray,
    scores: np.ndarray,
    token: str = "sample",
) -> GlobalBoxes:
    """Boxes of 1 m; places (n, 2) metres, velocities (n, 2) m/s, scores (n,)."""
    count = len(names)
    return GlobalBoxes(
        sample_token=token,
        center_global_m=np.pad(centers_m.astype(np.float64), ((0, 0), (0, 1))),
        size_wlh_m=np.ones((count, 3)),
        rotation_wxyz=np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
        velocity_global_mps=velocities_mps.astype(np.float64),
        scores=scores.astype(np.float64),
        class_names=tuple(names),
        attribute_names=("",) * count,
    )
