"""The devkit's summary as named numbers and as the printed table."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# Name in our tables -> name in the devkit. The order is that of the printed table.
ERROR_NAMES = {
    "mATE": "trans_err",
    "mASE": "scale_err",
    "mAOE": "orient_err",
    "mAVE": "vel_err",
    "mAAE": "attr_err",
}
# For people who meet the numbers in a report.
MEANINGS = {
    "NDS": "nuScenes detection score, 0 to 1: half mAP, half the five errors",
    "mAP": "mean average precision over classes and match distances, 0 to 1",
    "mATE": "translation error of matched boxes, metres",
    "mASE": "size error, 1 - overlap of aligned boxes",
    "mAOE": "heading error, radians",
    "mAVE": "velocity error, metres per second",
    "mAAE": "attribute error, 1 - accuracy",
}
CLASS_COLUMNS = ("AP", "ATE", "ASE", "AOE", "AVE", "AAE")
AP_WEIGHT = 5.0  # of mAP in the NDS; each error has weight 1


def headline_numbers(summary: Mapping[str, Any]) -> OrderedDict[str, float]:
    """NDS, mAP and the five mean errors of a devkit summary."""
    numbers = OrderedDict(NDS=float(summary["nd_score"]), mAP=float(summary["mean_ap"]))
    for name, devkit_name in ERROR_NAMES.items():
        numbers[name] = float(summary["tp_errors"][devkit_name])
    return numbers


def ap_at_distances(summary: Mapping[str, Any]) -> OrderedDict[str, float]:
    """Mean AP over the classes at each match distance: {"mAP_0.5m": ..., "mAP_4m": ...}."""
    per_class = summary["label_aps"]
    # The keys are texts in the file: "10.0" must not come before "2.0".
    distances = sorted({key for aps in per_class.values() for key in aps}, key=float)
    return OrderedDict(
        (f"mAP_{float(key):g}m", _mean(aps[key] for aps in per_class.values())) for key in distances
    )


def results_for_detectron2(summary: Mapping[str, Any]) -> OrderedDict[str, float]:
    """All scalars that the evaluator returns for its task.

    Returns:
        NDS, mAP, mATE ... mAAE, mAP_0.5m ... mAP_4m, AP_car ...; and mAP_present where some class
        has no true box (its AP of 0 is part of mAP).
    """
    # No name may hold a '-', which `print_csv_format` leaves out, or a character that tensorboard
    # refuses in a tag.
    numbers = headline_numbers(summary)
    numbers.update(ap_at_distances(summary))
    numbers.update((f"AP_{name}", float(ap)) for name, ap in summary["mean_dist_aps"].items())
    if absent_classes(summary):
        numbers["mAP_present"] = present_class_means(summary)["mAP"]
    return numbers


def absent_classes(summary: Mapping[str, Any]) -> list[str]:
    """Classes without a true box in the evaluated samples; the devkit scores them 0."""
    return [name for name, count in summary["num_gt_boxes"].items() if count == 0]


def present_class_means(summary: Mapping[str, Any]) -> OrderedDict[str, float]:
    """NDS, mAP and errors averaged over the classes that have true boxes."""
    present = [name for name, count in summary["num_gt_boxes"].items() if count > 0]
    mean_ap = _mean(summary["mean_dist_aps"][name] for name in present)
    errors = OrderedDict(
        (ours, _mean(summary["label_tp_errors"][name][theirs] for name in present))
        for ours, theirs in ERROR_NAMES.items()
    )
    # A set of cones alone has no velocity error: NaN, which counts as 1 in the NDS, as the devkit
    # counts a class without matches.
    scores = [1 - min(1.0, 1.0 if math.isnan(error) else error) for error in errors.values()]
    nds = (AP_WEIGHT * mean_ap + sum(scores)) / (AP_WEIGHT + len(scores))
    return OrderedDict(NDS=nds, mAP=mean_ap, **errors)


def per_class_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[float]]]:
    """(class, values of `CLASS_COLUMNS`) in the devkit's order; NaN where undefined."""
    errors = summary["label_tp_errors"]
    return [
        (name, [float(ap), *(float(errors[name][key]) for key in ERROR_NAMES.values())])
        for name, ap in summary["mean_dist_aps"].items()
    ]


def printed_table(summary: Mapping[str, Any]) -> str:
    """The table that the devkit's main() prints, plus the means over present classes."""
    numbers = headline_numbers(summary)
    # Names, order and digits are the devkit's: people and scripts compare them.
    lines = [f"{name}: {numbers[name]:.4f}" for name in ("mAP", *ERROR_NAMES, "NDS")]
    lines.append(f"Eval time: {summary['eval_time']:.1f}s")
    absent = absent_classes(summary)
    if absent:
        means = ", ".join(f"{k} {v:.4f}" for k, v in present_class_means(summary).items())
        lines += ["", f"No true boxes of {', '.join(absent)}: they count as AP 0 and errors 1."]
        lines.append(f"Mean over present classes: {means}")
    lines += ["", "Per-class results:"]
    lines.append(_table_row("Object Class", CLASS_COLUMNS))
    lines += [_table_row(name, [f"{v:.3f}" for v in row]) for name, row in per_class_rows(summary)]
    return "\n".join(lines)


def _table_row(name: str, cells: Sequence[str]) -> str:
    return f"{name:<22}" + "".join(f"{cell:<8}" for cell in cells).rstrip()


def _mean(values: Iterable[float]) -> float:
    """Mean that ignores NaN; NaN if nothing is left."""
    numbers = np.array(list(values), dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if len(numbers) else math.nan
