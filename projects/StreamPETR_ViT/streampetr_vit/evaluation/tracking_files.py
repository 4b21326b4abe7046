"""Reads what an evaluation of tracks wrote, or another tracker in the same official format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.summary_files import read_checked
from streampetr_vit.texts import shown

# What a summary has of each class. Source: the devkit's TrackingMetrics.
TRACKING_METRICS = ("amota", "amotp", "mota", "recall", "ids", "frag", "gt")
# And of all classes together: IDS and FRAG are sums, the others are means.
TRACKING_TOTALS = ("amota", "amotp", "mota", "recall", "ids", "frag")
_LARGEST_M = 1e8


def read_tracking_summary(path: Path) -> dict[str, Any]:
    """The content of an evaluation of tracks: metrics_summary.json.

    Returns:
        "label_metrics": class -> {metric of `TRACKING_METRICS`: value} of the classes that have
        true boxes, in the order of the file; "num_gt_boxes": class -> how many these have, NaN
        where the file does not tell; "absent": names of the others; and the metrics of
        `TRACKING_TOTALS`. What is not defined is NaN.

    Raises:
        MissingFileError: it cannot be read.
        InputError: it is another file.
    """
    return read_checked(path, _summary)


def check_tracked(records: Any, token: str) -> None:
    """Checks what pictures show of the boxes of a sample: place, id, class and score.

    Raises:
        InputError: naming the sample, the field, its value and what is allowed.
    """
    if not isinstance(records, list):
        raise InputError(
            f"tracking results of sample {shown(token)} must be a list of boxes, not "
            f"{shown(records)}; evaluate again"
        )
    for record in records:
        problem = _problem(record)
        if problem:
            raise InputError(
                f"tracking results: a box of sample {shown(token)} has {problem}; evaluate again"
            )


def _summary(content: Any) -> dict[str, Any]:
    by_metric = {name: dict(content["label_metrics"][name]) for name in TRACKING_METRICS}
    names = dict.fromkeys(name for values in by_metric.values() for name in values)
    of_classes = {
        str(name): {metric: _number(by_metric[metric].get(name)) for metric in TRACKING_METRICS}
        for name in names
    }
    # Our evaluator counts true boxes. The devkit does not for a class of which nothing was found,
    # and leaves NaN, which JSON knows as null, where there are none.
    counts = {
        name: _number(content.get("num_gt_boxes", {}).get(name, values["gt"] or math.nan))
        for name, values in of_classes.items()
    }
    absent = [
        name
        for name, values in of_classes.items()
        if math.isnan(values["amota"]) and not counts[name] > 0
    ]
    present = {name: values for name, values in of_classes.items() if name not in absent}
    totals = {metric: _number(content[metric]) for metric in TRACKING_TOTALS}
    known = {name: counts[name] for name in present}
    return {"label_metrics": present, "num_gt_boxes": known, "absent": absent, **totals}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _problem(record: Any) -> str:
    """What is wrong with a box, or nothing."""
    if not isinstance(record, Mapping):
        return f"the form {shown(record)}; it must be an object with tracking_id, translation ..."
    place = record.get("translation")
    if not isinstance(place, Sequence) or len(place) != 3 or not all(map(_is_place, place)):
        return f"translation {shown(place)}; it must be 3 finite numbers below {_LARGEST_M:g}"
    for field in ("tracking_id", "tracking_name"):
        if not isinstance(record.get(field), str):
            return f"{field} {shown(record.get(field))}; it must be a text"
    score = record.get("tracking_score")
    if not _is_place(score):
        return f"tracking_score {shown(score)}; it must be a finite number"
    return ""


def _is_place(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= _LARGEST_M  # which NaN is not
