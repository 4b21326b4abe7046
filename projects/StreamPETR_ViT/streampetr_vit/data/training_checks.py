"""What training is about to do with a data set: which boxes it sees, and how its pictures fit.

Everything is counted on whole columns: a second for the 1.1 million boxes of nuScenes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampetr_vit.data.annotations import has_points, is_in_range
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.errors import InputError
from streampetr_vit.logs import log_once
from streampetr_vit.texts import name_list, nearest

_LOG = logging.getLogger(__name__)

# How far beyond the scale of evaluation a range of training may begin or end.
_RANGE_SLACK = 1.15
# Of the published recipes, relative to the scale that fills the input.
_PUBLISHED_RANGE = (0.94, 1.25)


@dataclass(frozen=True)
class BoxCounts:
    """Where the annotations of a data set go, each counted at the first rule that drops it.

    Attributes:
        of_no_class: category -> boxes of no class.
        without_points: (classes,) boxes without a lidar or radar point.
        out_of_range: (classes,) boxes outside of point_cloud_range.
        used: (classes,) boxes that training sees.
    """

    of_no_class: dict[str, int]
    without_points: np.ndarray
    out_of_range: np.ndarray
    used: np.ndarray

    @property
    def total(self) -> int:
        """All annotations."""
        columns = (self.without_points, self.out_of_range, self.used)
        return sum(self.of_no_class.values()) + int(sum(column.sum() for column in columns))


def count_boxes(records: FrameRecords, mapper: NuScenesMapper) -> BoxCounts:
    """Counts the boxes that a mapper keeps and drops in training, before scene augmentation."""
    labels, category = records.labels, records.boxes("gt_category")
    is_class = labels >= 0
    seen = has_points(records.boxes("num_lidar_pts"), records.boxes("num_radar_pts"))
    seen |= not mapper.use_valid_flag
    # As the mapper does: float32, whose rounding may move a centre onto the border.
    near = is_in_range(
        records.boxes("gt_boxes")[:, :2].astype(np.float32), mapper.point_cloud_range
    )
    categories = np.bincount(category[~is_class], minlength=len(records.category_names))
    by_category: dict[str, int] = {}
    for name, count in zip(records.category_names, categories.tolist(), strict=True):
        if count:
            by_category[name] = by_category.get(name, 0) + count

    def per_class(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(labels[is_class & chosen], minlength=len(records.spec.classes))

    return BoxCounts(by_category, per_class(~seen), per_class(seen & ~near), per_class(seen & near))


def check_boxes(records: FrameRecords, mapper: NuScenesMapper) -> None:
    """Says which boxes training sees.

    Raises:
        InputError: there is none; it says what dropped them, and the settings to change.
    """
    counts, where = count_boxes(records, mapper), records.root / records.version
    dropped = _dropped(counts, mapper)
    used = int(counts.used.sum())
    if used == 0:
        reasons = "".join(f"; {reason}" for reason in dropped) or "; the scenes have none"
        raise InputError(
            f"{where} has no box to train on: of {counts.total} annotations 0 are left{reasons}"
        )
    without = ". ".join(("", *dropped))
    log_once(_LOG, logging.INFO, f"{where}: training uses {used} of {counts.total} boxes{without}")
    names = records.spec.class_names
    lost = [_lost_class(names[k], counts, k) for k in np.flatnonzero(counts.used == 0)]
    if lost:
        message = f"{where} has no box to train on of {len(lost)} of {len(names)} classes: "
        log_once(_LOG, logging.WARNING, message + ", ".join(lost))


def _lost_class(name: str, counts: BoxCounts, label: int) -> str:
    """A class without a box, and what became of its annotations."""
    columns = {"without points": counts.without_points, "out of range": counts.out_of_range}
    parts = [f"{column[label]} {reason}" for reason, column in columns.items() if column[label]]
    return f"{name} ({', '.join(parts)})" if parts else name


def _dropped(counts: BoxCounts, mapper: NuScenesMapper) -> list[str]:
    """Each rule that drops boxes, with its count and its setting."""
    rules = []
    of_no_class = sum(counts.of_no_class.values())
    if of_no_class:
        categories = [f"{name} {n}" for name, n in counts.of_no_class.items()]
        rules.append(
            f"{of_no_class} are of categories that no class takes: {name_list(categories)} "
            "(dataset_spec.classes names the categories)"
        )
    without_points = int(counts.without_points.sum())
    if without_points:
        rules.append(
            f"{without_points} have no lidar or radar point (num_lidar_pts and num_radar_pts are "
            "0; dataloader.train.mapper.use_valid_flag=False keeps them)"
        )
    out_of_range = int(counts.out_of_range.sum())
    if out_of_range:
        rules.append(
            f"{out_of_range} lie outside of {list(mapper.point_cloud_range)} metres around the "
            "lidar (model.head.point_cloud_range sets it)"
        )
    return rules


def check_class_names_2d(records: FrameRecords, class_names: Sequence[str] | None) -> None:
    """The order of the 2D labels must name each class once.

    Raises:
        InputError: a name is absent, unknown or there twice.
    """
    names = records.spec.class_names
    if class_names is None or sorted(class_names) == sorted(names):
        return
    unknown = sorted(set(class_names) - set(names))
    hints = dict.fromkeys(other for name in unknown for other in nearest(name, names))
    absent = sorted(set(names) - set(class_names))
    problems = [
        f"unknown are {name_list(unknown)}" if unknown else "",
        f"nearest to them {name_list(hints)}" if hints else "",
        f"absent are {name_list(absent)}" if absent else "",
        "" if len(set(class_names)) == len(class_names) else "a name is there twice",
    ]
    raise InputError(
        "dataloader.train.mapper.class_names_2d must have each class of dataset_spec.classes once: "
        f"{', '.join(filter(None, problems))}"
    )


def check_resize_range(records: FrameRecords, image_aug: ImageAugmentation) -> None:
    """Warns where training would see pictures at another scale than evaluation does."""
    low, high = image_aug.resize_range
    # The range is meant for the first camera; the others are scaled to fill the input as much.
    sizes = np.unique(records.image_sizes[:, 0], axis=0).tolist()
    for width, height in sizes:
        fills = image_aug.fixed((width, height)).scale  # what evaluation takes
        if low <= fills * _RANGE_SLACK and high >= fills / _RANGE_SLACK:
            continue
        fitting = (1.0, 1.0) if low == high else _PUBLISHED_RANGE
        fits = ",".join(f"{fills * factor:.4g}" for factor in fitting)
        final_height, final_width = image_aug.final_size
        larger = " to ".join(dict.fromkeys(f"{scale / fills:.2g}" for scale in (low, high)))
        log_once(
            _LOG,
            logging.WARNING,
            f"image_aug.resize_range [{low:g}, {high:g}] does not fit pictures of {width}x{height} "
            f"({records.spec.cameras[0]}) at an input of {final_width}x{final_height}: evaluation "
            f"scales them by {fills:.4g}, so training sees objects {larger} times as large. Set "
            f"dataloader.train.mapper.image_aug.resize_range=[{fits}]",
        )
