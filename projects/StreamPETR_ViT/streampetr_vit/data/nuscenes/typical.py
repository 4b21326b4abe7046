"""What is usual in a data set: where boxes are measured from, and how fast frames come."""

from __future__ import annotations

import numpy as np

from streampetr_vit.data.nuscenes.records import FrameRecords


def usual_reference(records: FrameRecords) -> list[float]:
    """Pose on the vehicle of the frame that boxes are measured from: that of most frames.

    A set may be of several cars. Where no pose is more frequent, it is that of the first frame.

    Args:
        records: at least one frame.

    Returns:
        (x, y, z, qw, qx, qy, qz), metres and a unit quaternion.
    """
    rows = records.lidar_to_ego
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    return rows[first[counts == counts.max()].min()].tolist()


def usual_period_s(records: FrameRecords) -> float | None:
    """Median time between the frames of a scene, in seconds; None where no scene has two."""
    steps = np.diff(records.timestamps_us)
    ends = np.cumsum(records.scene_lengths)[:-1] - 1  # steps from one scene to the next
    within = np.delete(steps, ends)
    return float(np.median(within)) / 1e6 if len(within) else None
