"""2D boxes of a frame's objects in its stored pictures, computed from the 3D boxes.

A 2D box is the bound of what the picture shows of a cuboid: of the convex hull of its projected
corners in front of the camera, cut by the edge of the picture. Source: the 2D annotations of
StreamPETR's converter, which are those of nuScenes' own export tool. Quirk: neither visibility nor
range nor sensor points matter.

Shape letters: N cameras, n boxes, P pairs of a camera and a box, K points of a hull.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from streampetr_vit.data.annotations import label_table
from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.structures import Boxes2D, box_corners
from streampetr_vit.structures.pose import rotation_of

_MIN_SIZE_PX = 1.0
# Twice the area of a hull over the square of its length, at which rounding is all that is left.
_FLAT = 1e-12
_PICTURE_CORNERS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])


def boxes2d_of_record(
    record: FrameRecord, class_names: Sequence[str] | None = None
) -> list[Boxes2D]:
    """The 2D boxes of a frame, in pixels of the stored pictures.

    Left out are objects of other classes, those whose centre is not in front of the camera, and
    2D boxes of less than one pixel in width or height. Centres may lie outside the picture.

    Args:
        record: the frame.
        class_names: order of the labels, see `label_table`; None for that of the data set.

    Returns:
        One `Boxes2D` per camera, in the order of the frame's annotations.
    """
    names = record.spec.class_names if class_names is None else class_names
    labels = label_table(record.spec, names)[torch.from_numpy(record.gt_labels)]
    in_camera = _in_cameras(record, (labels >= 0).numpy())
    with np.errstate(divide="ignore", invalid="ignore"):
        # (N, n, 9, 3) metres -> (N, n, 9, 2) pixels; without meaning behind the camera
        pixels = in_camera @ record.camera_intrinsics[:, None].swapaxes(-1, -2)
        pixels = pixels[..., :2] / pixels[..., 2:]
    cameras, count = pixels.shape[:2]
    bounds = bounds_in_picture(
        pixels[:, :, 1:].reshape(-1, 8, 2),  # (N, n, 8, 2) -> (P, 8, 2)
        (in_camera[:, :, 1:, 2] > 0).reshape(-1, 8),
        np.repeat(record.image_sizes, count, axis=0),
    ).reshape(cameras, count, 4)  # (P, 4) -> (N, n, 4)
    depths = in_camera[:, :, 0, 2]  # (N, n) of the centres
    large = (bounds[..., 2:] - bounds[..., :2] >= _MIN_SIZE_PX).all(axis=-1)  # False for NaN
    labels = labels[labels >= 0]
    boxes = []
    for camera, keep in enumerate(large & (depths > 0)):
        columns = (bounds[camera, keep], pixels[camera, keep, 0], depths[camera, keep])
        corners, centers, depth = (torch.from_numpy(c).float() for c in columns)
        boxes.append(Boxes2D(corners, centers, labels[torch.from_numpy(keep)], depth))
    return boxes


def _in_cameras(record: FrameRecord, chosen: np.ndarray) -> np.ndarray:
    """(N, n, 9, 3) float64 in camera frames: the centre of each chosen box, then its corners."""
    boxes, wxyz = record.gt_boxes[chosen], record.gt_rotation[chosen]
    points = np.repeat(boxes[:, None, :3], 9, axis=1)  # (n, 9, 3)
    if len(wxyz):  # an empty stack of rotations is not for every scipy
        rotation = rotation_of(wxyz).as_matrix()
        corners = box_corners(torch.from_numpy(boxes), torch.from_numpy(rotation))
        points[:, 1:] = corners.numpy()
    # camera_to_lidar holds the pose of the car at the camera's own time.
    axes, origin = record.camera_to_lidar[:, None, :3, :3], record.camera_to_lidar[:, None, :3, 3]
    return (points - origin[:, :, None]) @ axes  # rows times R: the inverse rotation


def bounds_in_picture(points: np.ndarray, valid: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Bounds of convex hulls where they lie in the picture.

    Args:
        points: (P, K, 2) float64 pixels.
        valid: (P, K) bool, which of the points span the hull.
        size: (P, 2) width and height of the picture, which is [0, width] x [0, height].

    Returns:
        (P, 4) float64 x1, y1, x2, y2 of hull and picture's intersection; NaN where it has no area.
    """
    # A copy of a valid point in the place of an invalid one leaves the hull as it is.
    first = points[np.arange(len(points)), valid.argmax(axis=1)]
    points = np.where(valid[..., None], points, first[:, None])
    low, high = points.min(axis=1), points.max(axis=1)
    meets = valid.any(axis=1) & (high > 0).all(axis=1) & (low < size).all(axis=1)
    whole = meets & (low >= 0).all(axis=1) & (high <= size).all(axis=1)
    bounds = np.concatenate((low, high), axis=1)
    cut = meets & ~whole
    bounds[cut] = _cut_bounds(points[cut], size[cut])
    meets[meets] = ~_is_flat(points[meets])
    area = (bounds[:, 2:] > bounds[:, :2]).all(axis=1)
    bounds[~(meets & area)] = np.nan
    return bounds


def _cut_bounds(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(P, 4) bounds of hulls that the picture's edge may cut; low > high where they do not meet."""
    # The vertices of the intersection are points in the picture, crossings of hull edges with its
    # sides, and corners of the picture inside the hull. The connections of all pairs of points
    # include the edges of the hull and never leave it: clipped, they give the first two kinds.
    begin, end = np.triu_indices(points.shape[1], 1)
    ends, met = _clip_segments(points[:, begin], points[:, end], size)  # of K (K - 1) / 2 pairs
    corners = size[:, None] * _PICTURE_CORNERS  # (P, 4, 2)
    candidates = np.concatenate((ends, corners), axis=1)
    counts = np.concatenate((met, _inside_hull(corners, points)), axis=1)[..., None]
    low = np.where(counts, candidates, np.inf).min(axis=1)
    high = np.where(counts, candidates, -np.inf).max(axis=1)
    # A crossing that was rounded to just outside.
    return np.concatenate((np.maximum(low, 0), np.minimum(high, size)), axis=1)


def _clip_segments(
    begin: np.ndarray, end: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Clips S segments, (P, S, 2) each, to the picture.

    Returns:
        (P, 2 S, 2) ends of the parts inside, and (P, 2 S) whether there is such a part.
    """
    along, limit = end - begin, size[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        at_zero, at_limit = -begin / along, (limit - begin) / along
    # A segment along an axis is within the other two sides everywhere or nowhere.
    parallel = along == 0
    never = parallel & ((begin < 0) | (begin > limit))
    enter = np.where(parallel, -np.inf, np.minimum(at_zero, at_limit))
    leave = np.where(parallel, np.inf, np.maximum(at_zero, at_limit))
    enter, leave = enter.max(axis=-1).clip(min=0), leave.min(axis=-1).clip(max=1)  # (P, S)
    met = (enter <= leave) & ~never.any(axis=-1)
    parts = np.concatenate((enter, leave), axis=1)
    ends = np.tile(begin, (1, 2, 1)) + parts[..., None] * np.tile(along, (1, 2, 1))
    return ends, np.tile(met, (1, 2))


def _inside_hull(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(P, Q) bool: which of the places (P, Q, 2) lie inside the hull of the points (P, K, 2)."""
    x, y = np.moveaxis(points[:, None] - places[:, :, None], -1, 0)  # (P, Q, K) each
    turn = x[..., :, None] * y[..., None, :] - y[..., :, None] * x[..., None, :]  # (P, Q, K, K)
    # From outside, all points are seen within half a turn: all others lie to the left of one.
    return ~(turn >= 0).all(axis=-1).any(axis=-1)


def _is_flat(points: np.ndarray) -> np.ndarray:
    """(P,) bool: whether all points (P, K, 2) lie on one line."""
    offset = points - points[:, :1]
    distance2 = (offset**2).sum(axis=-1)
    far = np.take_along_axis(offset, distance2.argmax(axis=1)[:, None, None], axis=1)  # (P, 1, 2)
    turn = far[..., 0] * offset[..., 1] - far[..., 1] * offset[..., 0]
    return np.abs(turn).max(axis=1) <= _FLAT * distance2.max(axis=1)
