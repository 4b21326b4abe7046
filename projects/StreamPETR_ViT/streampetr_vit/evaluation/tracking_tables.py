"""The devkit's tracking summary as named numbers and as the printed table."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

# Name in our tables -> name in the devkit. The order is that of the printed table.
NAMES = {
    "AMOTA": "amota",
    "AMOTP": "amotp",
    "MOTA": "mota",
    "MOTP": "motp",
    "MOTAR": "motar",
    "RECALL": "recall",
    "IDS": "ids",
    "FRAG": "frag",
    "MT": "mt",
    "ML": "ml",
    "TP": "tp",
    "FP": "fp",
    "FN": "fn",
    "FAF": "faf",
    "TID": "tid",
    "LGD": "lgd",
}
CLASS_COLUMNS = ("AMOTA", "AMOTP", "MOTA", "RECALL", "IDS", "FRAG")
_COUNTS = {"IDS", "FRAG", "MT", "ML", "TP", "FP", "FN"}


def tracking_numbers(summary: Mapping[str, Any]) -> OrderedDict[str, float]:
    """All scalars that the evaluator returns; what is not defined is left out.

    Returns:
        AMOTA, AMOTP, ... LGD over all classes that have true boxes (counts are sums, the others
        means), and AMOTA_car, ... FRAG_car of each of them.
    """
    numbers = OrderedDict((ours, summary[theirs]) for ours, theirs in NAMES.items())
    for name in present_classes(summary):
        for ours in CLASS_COLUMNS:
            numbers[f"{ours}_{name}"] = summary["label_metrics"][NAMES[ours]][name]
    return OrderedDict((key, float(v)) for key, v in numbers.items() if v is not None)


def present_classes(summary: Mapping[str, Any]) -> list[str]:
    """Classes with true boxes in the evaluated samples."""
    return [name for name, count in summary["num_gt_boxes"].items() if count]


def absent_classes(summary: Mapping[str, Any]) -> list[str]:
    """Classes without a true box; the devkit has no numbers of them."""
    return [name for name, count in summary["num_gt_boxes"].items() if not count]


def printed_tracking_table(summary: Mapping[str, Any]) -> str:
    """The means and counts, then a row for each class."""
    lines = [f"{ours}: {_cell(ours, summary[theirs])}" for ours, theirs in NAMES.items()]
    lines.append(f"Eval time: {summary['eval_time']:.1f}s")
    absent = absent_classes(summary)
    if absent:
        lines += ["", f"No true boxes of {', '.join(absent)}: they are not part of the means."]
    lines += ["", "Per-class results:", _row("Object Class", [*CLASS_COLUMNS, "boxes", "objects"])]
    for name in present_classes(summary):
        values = [summary["label_metrics"][NAMES[ours]][name] for ours in CLASS_COLUMNS]
        cells = [_cell(ours, value) for ours, value in zip(CLASS_COLUMNS, values, strict=True)]
        counts = [str(summary[key][name]) for key in ("num_gt_boxes", "num_gt_tracks")]
        lines.append(_row(name, [*cells, *counts]))
    return "\n".join(lines)


def _cell(name: str, value: float | None) -> str:
    if value is None:  # such as the switches of a class that no track has found
        return "-"
    return f"{value:.0f}" if name in _COUNTS else f"{value:.4f}"


def _row(name: str, cells: list[str]) -> str:
    return f"{name:<16}" + "".join(f"{cell:<9}" for cell in cells).rstrip()
