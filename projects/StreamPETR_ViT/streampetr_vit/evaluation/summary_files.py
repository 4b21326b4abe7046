"""Reads what an evaluation wrote: metrics_summary.json and metrics_details.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.metric_tables import ERROR_NAMES
from streampetr_vit.json_files import read_json
from streampetr_vit.texts import shown


def read_summary(path: Path) -> dict[str, Any]:
    """The content of metrics_summary.json: only what tables show, each value of its type.

    Raises:
        MissingFileError: it cannot be read.
        InputError: it is another file.
    """
    return read_checked(path, _summary)


def read_details(path: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """The content of metrics_details.json: precision over recall of the classes of a summary.

    Raises:
        MissingFileError: it cannot be read.
        InputError: it is another file, or that of another evaluation.
    """
    return read_checked(path, lambda content: _details(content, summary["label_aps"]))


def read_checked(path: Path, read: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """What `read` makes of the content of a JSON file that an evaluation wrote.

    Raises:
        MissingFileError: it cannot be read.
        InputError: `read` finds a key or a type that it does not expect.
    """
    content = read_json(path)
    try:
        return read(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path} is not what an evaluation writes ({shown(error)}); evaluate again"
        ) from error


def _summary(content: Any) -> dict[str, Any]:
    names = list(content["mean_dist_aps"])
    devkit_names = ERROR_NAMES.values()
    return {
        "nd_score": float(content["nd_score"]),
        "mean_ap": float(content["mean_ap"]),
        "tp_errors": {name: float(content["tp_errors"][name]) for name in devkit_names},
        "mean_dist_aps": {name: float(content["mean_dist_aps"][name]) for name in names},
        "label_aps": {
            # The keys are distances: they are read as numbers when they are shown.
            name: {f"{float(d)}": float(ap) for d, ap in content["label_aps"][name].items()}
            for name in names
        },
        "label_tp_errors": {
            name: {key: float(content["label_tp_errors"][name][key]) for key in devkit_names}
            for name in names
        },
        "num_gt_boxes": {name: int(content["num_gt_boxes"][name]) for name in names},
        "eval_time": float(content.get("eval_time", "nan")),
    }


def _details(content: Any, classes: dict[str, Any]) -> dict[str, Any]:
    curves = {}
    for key, curve in content.items():
        name, _, distance = key.partition(":")  # such as "car:0.5"
        if name not in classes:
            raise ValueError(f"{shown(name)} is not in the summary")
        recall, precision = ([float(v) for v in curve[k]] for k in ("recall", "precision"))
        if len(recall) != len(precision) or not all(0 <= v <= 1 for v in (*recall, *precision)):
            raise ValueError(f"{shown(key)} is no curve of precision over recall")
        curves[f"{name}:{float(distance)}"] = {"recall": recall, "precision": precision}
    return curves
