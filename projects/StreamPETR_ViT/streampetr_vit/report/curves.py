"""Charts of a training from detectron2's metrics.json."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streampetr_vit.report.charts import Chart

_LOG = logging.getLogger(__name__)

Scalars = Mapping[str, Mapping[float, float]]  # name -> {iteration: value}

# Losses of the earlier decoder layers are left out: they follow the last layer's.
_LAYER = re.compile(r"(^|[._])d\d+[._]")
# Losses of the 2D head have a chart of their own: their scale is another.
_IMAGE_HEAD = re.compile(r"(^|\.)(enc_|centers2d|centerness)")
_MAX_LINES = 7  # of a chart, as many as it has colours


def read_scalars(metrics_json: str | Path) -> dict[str, dict[float, float]]:
    """Reads what detectron2's JSONWriter wrote, one JSON object per line.

    Returns:
        name -> {iteration: value}, finite values only, iterations ascending. Lines that are no
        such object are left out, and counted in the log if there are several: one may be the last
        line of a run that was stopped while writing.
    """
    scalars: dict[str, dict[float, float]] = {}
    unreadable = 0
    for line in Path(metrics_json).read_text(encoding="utf-8", errors="replace").splitlines():
        row = _row(line)
        unreadable += row is None
        iteration = None if row is None else row.pop("iteration", None)
        if row is None or not _is_finite(iteration) or iteration < 0:
            continue
        for name, value in row.items():
            if _is_finite(value):
                # A resumed run repeats iterations: the later line counts.
                scalars.setdefault(name, {})[int(iteration)] = float(value)
    if unreadable > 1:
        _LOG.warning("%s: left out %d lines that are no JSON objects", metrics_json, unreadable)
    return {name: dict(sorted(values.items())) for name, values in scalars.items()}


def _row(line: str) -> dict[str, Any] | None:
    """A line of the file; None if it is no JSON object."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _is_finite(value: Any) -> bool:
    # An int of 400 digits is no float, and above this one charts cannot place a value.
    return isinstance(value, (int, float)) and abs(value) < 1e30


def training_charts(scalars: Scalars) -> list[Chart]:
    """The charts of a report from what `read_scalars` returns, without those that have no data."""
    # detectron2's names: "d0.loss_cls" is of the first decoder layer, "bbox3d/NDS" of a task.
    losses = [n for n in scalars if "loss" in n and n != "total_loss" and not _LAYER.search(n)]
    # Names of losses differ between heads: they are sorted by what they contain.
    images = [n for n in losses if _IMAGE_HEAD.search(n)]
    classes = [n for n in losses if re.search("cls|class", n) and n not in images]
    boxes = [n for n in losses if "box" in n and n not in images]
    others = [n for n in losses if n not in (*classes, *boxes, *images)]
    scores = [n for n in scalars if n.rpartition("/")[2] in ("NDS", "mAP")]
    charts = [
        _chart("Total loss", scalars, ["total_loss"]),
        _chart("Classification loss", scalars, classes),
        _chart("Box loss", scalars, boxes),
        _chart("Losses of the 2D head", scalars, images),
        _chart("Other losses", scalars, others),
        _chart("Scores on the evaluation set", scalars, scores, smooth=False),
        _chart("Learning rate", scalars, ["lr"], smooth=False),
        # A few steps of a thousandfold norm would flatten a linear axis.
        _chart("Gradient norm", scalars, ["grad_norm"], log_y=True),
        _chart("Seconds per iteration", scalars, ["time", "data_time"]),
    ]
    return [chart for chart in charts if chart.lines]


def _chart(
    title: str, scalars: Scalars, names: Sequence[str], smooth: bool = True, log_y: bool = False
) -> Chart:
    chosen = [name for name in scalars if name in names][:_MAX_LINES]
    # A single point is no curve: a lone evaluation at the end is in the tables.
    lines = {name: scalars[name] for name in chosen if len(scalars[name]) > 1}
    # A norm of 0 has no logarithm.
    positive = all(value > 0 for line in lines.values() for value in line.values())
    return Chart(title, lines, smooth=smooth, log_y=log_y and positive)
