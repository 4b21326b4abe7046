"""From metrics.json to charts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from streampetr_vit.report.charts import Chart, moving_mean, render_chart, ticks
from streampetr_vit.report.curves import read_scalars, training_charts


def test_read_scalars(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    rows = [
        {"iteration": 20, "total_loss": 3.0},
        {"iteration": 40, "total_loss": float("nan"), "lr": 0.1},
        {"iteration": 20, "total_loss": 2.0, "rank": "text"},
        {"no_iteration": 1},
    ]
    odd = '3\n[1]\n{"iteration": null, "lr": 1}\n{"iteration": 60, "tot'
    path.write_bytes("\n".join([*map(json.dumps, rows), odd]).encode() + b"\xff\x00")
    assert read_scalars(path) == {"total_loss": {20: 2.0}, "lr": {40: 0.1}}


def test_charts_of_a_training() -> None:
    names = (
        *("total_loss", "loss_cls", "loss_bbox", "dn_loss_cls", "d0.loss_cls", "d0.dn_loss_bbox"),
        *(
            "enc_loss_cls",
            "t-1.centers2d_losses",
            "loss_extra",
            "lr",
            "grad_norm",
            "time",
            "data_time",
            "eta_seconds",
        ),
    )
    scalars = {name: {i: 1.0 + i for i in range(30)} for name in names}
    scalars["bbox3d/mAP"] = {10: 0.1, 20: 0.2}
    scalars["bbox3d/NDS"] = {29: 0.2}  # evaluated once: no curve
    charts = {chart.title: list(chart.lines) for chart in training_charts(scalars)}
    assert charts == {
        "Total loss": ["total_loss"],
        "Classification loss": ["loss_cls", "dn_loss_cls"],
        "Box loss": ["loss_bbox"],
        "Losses of the 2D head": ["enc_loss_cls", "t-1.centers2d_losses"],
        "Other losses": ["loss_extra"],
        "Scores on the evaluation set": ["bbox3d/mAP"],
        "Learning rate": ["lr"],
        "Gradient norm": ["grad_norm"],
        "Seconds per iteration": ["time", "data_time"],
    }
    assert training_charts({}) == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 47, [0, 10, 20, 30, 40]),
        (3, 3, [3]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_moving_mean() -> None:
    assert moving_mean([1.0, 2.0, 3.0, 4.0], 3) == pytest.approx([1.5, 2, 3, 3.5])


def _points(svg: str) -> list[tuple[float, float]]:
    (data,) = re.findall(r'class="line"[^>]* d="M([^"]+)"', svg)
    return [tuple(map(float, point.split(","))) for point in data.split("L")]  # type: ignore[misc]


def test_chart_geometry() -> None:
    """Equal steps in value are equal steps on the page; the axis starts at zero."""
    svg = render_chart(Chart("c", {"s": {0: 0.0, 50: 5.0, 100: 10.0}}))
    (x0, y0), (x1, y1), (x2, y2) = _points(svg)
    assert x0 < x1 < x2 and y0 > y1 > y2
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)


def test_logarithmic_chart() -> None:
    svg = render_chart(Chart("c", {"s": {0: 0.01, 1: 1.0, 2: 100.0}}, log_y=True))
    (_, y0), (_, y1), (_, y2) = _points(svg)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)


def test_constant_line_and_long_series() -> None:
    assert "nan" not in render_chart(Chart("c", {"s": {0: 0.0, 1: 0.0}}))
    long = dict.fromkeys(range(100_000), 1.0)
    assert len(render_chart(Chart("c", {"s": long}, smooth=True))) < 60_000
