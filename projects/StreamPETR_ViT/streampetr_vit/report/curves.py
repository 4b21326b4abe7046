"""Charts of a training from detectron2's metrics.json."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from streampetr_vit.report.charts import Chart, Series

# Scalars by name -> {iteration: value}
Scalars = Mapping[str, Mapping[int, float]]

# Losses of the earlier decoder layers are left out: they follow the last layer's.
_LAYER = re.compile(r"(^|[._])d\d+[._]")
# Losses of the 2D head, whose scale is its own.
_IMAGE_HEAD = re.compile(r"(^|\.)(enc_|centers2d|centerness)")
_MAX_LINES = 7


def read_scalars(metrics_json: str | Path) -> dict[str, dict[int, float]]:
    """Reads what detectron2's JSONWriter wrote, one JSON object per line.

    Where an iteration occurs twice (a resumed run), the later line counts. Values that are not
    finite and a last line that was cut off are left out.

    Args:
        metrics_json: the file.

    Returns:
        name -> {iteration: value}, iterations ascending.
    """
    scalars: dict[str, dict[int, float]] = {}
    for line in Path(metrics_json).read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        iteration = row.pop("iteration", None)
        if iteration is None:
            continue
        for name, value in row.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                scalars.setdefault(name, {})[int(iteration)] = float(value)
    return {name: dict(sorted(values.items())) for name, values in scalars.items()}


def training_charts(scalars: Scalars) -> list[Chart]:
    """The charts of a report, without those that have no data.

    Args:
        scalars: as `read_scalars` returns them.

    Returns:
        Total loss, classification loss, box loss, losses of the 2D head, other losses, scores,
        learning rate, gradient norm, seconds per iteration.
    """
    losses = [n for n in scalars if "loss" in n and n != "total_loss" and not _LAYER.search(n)]
    images = [n for n in losses if _IMAGE_HEAD.search(n)]
    classes = [n for n in losses if re.search("cls|class", n) and n not in images]
    boxes = [n for n in losses if re.search("box", n) and n not in images]
    others = [n for n in losses if n not in (*classes, *boxes, *images)]
    scores = [n for n in scalars if n.rpartition("/")[2] in ("NDS", "mAP")]
    charts = [
        _chart("Total loss", scalars, lambda n: n == "total_loss", smooth=True),
        _chart("Classification loss", scalars, classes.__contains__, smooth=True),
        _chart("Box loss", scalars, boxes.__contains__, smooth=True),
        _chart("Losses of the 2D head", scalars, images.__contains__, smooth=True),
        _chart("Other losses", scalars, others.__contains__, smooth=True),
        _chart("Scores on the evaluation set", scalars, scores.__contains__),
        _chart("Learning rate", scalars, lambda n: n == "lr"),
        _chart("Gradient norm", scalars, lambda n: n == "grad_norm", smooth=True, log_y=True),
        _chart("Seconds per iteration", scalars, ("time", "data_time").__contains__, smooth=True),
    ]
    return [chart for chart in charts if chart is not None]


def _chart(
    title: str,
    scalars: Scalars,
    chosen: Callable[[str], bool],
    smooth: bool = False,
    log_y: bool = False,
) -> Chart | None:
    names = [name for name in scalars if chosen(name)][:_MAX_LINES]
    series = [Series(n, list(scalars[n]), list(scalars[n].values())) for n in names]
    # A single point is no curve: a lone evaluation at the end is in the tables.
    series = [s for s in series if len(s.x) > 1]
    if not series:
        return None
    positive = all(value > 0 for s in series for value in s.y)
    return Chart(title, series, smooth=smooth, log_y=log_y and positive)
