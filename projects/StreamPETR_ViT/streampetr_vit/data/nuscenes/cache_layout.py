"""What a record cache must hold, checked before anything of it is used.

The file lies in the data root, where another user may have put it. It holds no code, but offsets
that point elsewhere would give frames the boxes of others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from streampetr_vit.data.nuscenes.cache import CacheError

# Column -> type and shape. S frames, C scenes, N cameras, A boxes; None is the width of a text.
_COLUMNS: dict[str, tuple[str, tuple[str | int | None, ...]]] = {
    "token": ("u1", ("S", None)),
    "timestamp_us": ("i8", ("S",)),
    "scene_of_frame": ("i4", ("S",)),
    "scene_token": ("u1", ("C", None)),
    "scene_name": ("u1", ("C", None)),
    "scene_offsets": ("i8", ("C + 1",)),
    "lidar_to_ego": ("f8", ("S", 7)),
    "ego_to_global": ("f8", ("S", 7)),
    "camera_path": ("u1", ("S", "N", None)),
    "camera_timestamp_us": ("i8", ("S", "N")),
    "camera_to_lidar": ("f8", ("S", "N", 4, 4)),
    "camera_intrinsics": ("f8", ("S", "N", 3, 3)),
    "image_size": ("i4", ("S", "N", 2)),
    "gt_boxes": ("f8", ("A", 9)),
    "gt_rotation": ("f8", ("A", 4)),
    "gt_category": ("i4", ("A",)),
    "num_lidar_pts": ("i4", ("A",)),
    "num_radar_pts": ("i4", ("A",)),
    "instance": ("i4", ("A",)),
    "box_offsets": ("i8", ("S + 1",)),
}


def check_layout(
    columns: Mapping[str, np.ndarray], metadata: Mapping[str, str], cameras: int
) -> list[str]:
    """Checks columns and offsets; returns the names of the categories.

    Raises:
        CacheError: naming the column that is absent or of another form.
    """
    missing = sorted(set(_COLUMNS) - set(columns))
    if missing:
        raise CacheError(f"the record cache has no column {', '.join(missing)}")
    odd = sorted(name for name, (_, shape) in _COLUMNS.items() if columns[name].ndim != len(shape))
    if odd:
        raise CacheError(f"the record cache has another number of axes in {', '.join(odd)}")
    frames, scenes, boxes = (len(columns[c]) for c in ("timestamp_us", "scene_name", "gt_boxes"))
    sizes: dict[str | int | None, int] = {"S": frames, "C": scenes, "N": cameras, "A": boxes}
    sizes |= {"S + 1": frames + 1, "C + 1": scenes + 1}
    for name, (dtype, shape) in _COLUMNS.items():
        column = columns[name]
        # A width of a text may be any but 0, which no view of texts takes.
        wanted = tuple(max(1, column.shape[-1]) if s is None else sizes.get(s, s) for s in shape)
        if column.dtype != dtype or column.shape != wanted:
            raise CacheError(f"column {name} of the record cache is {column.dtype} {column.shape}")
    scene_of_frame = np.repeat(np.arange(scenes), _lengths(columns["scene_offsets"], frames))
    if (scene_of_frame != columns["scene_of_frame"]).any():
        raise CacheError("column scene_of_frame of the record cache is not that of its scenes")
    _lengths(columns["box_offsets"], boxes)
    categories = _categories(metadata)
    category = columns["gt_category"]
    if len(category) and not 0 <= category.min() <= category.max() < len(categories):
        raise CacheError("column gt_category of the record cache names categories beyond the last")
    return categories


def _lengths(offsets: np.ndarray, total: int) -> np.ndarray:
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != total or (lengths < 0).any():
        raise CacheError("offsets of the record cache do not cover its rows")
    return lengths


def _categories(metadata: Mapping[str, str]) -> list[str]:
    try:
        categories = json.loads(metadata["categories"])
    except (KeyError, TypeError, ValueError, RecursionError):
        categories = None
    if not isinstance(categories, list) or not all(isinstance(name, str) for name in categories):
        raise CacheError("the record cache has no list of categories")
    if not {"version", "has_annotations"} <= metadata.keys():
        raise CacheError("the record cache does not say which version it is of")
    return categories
