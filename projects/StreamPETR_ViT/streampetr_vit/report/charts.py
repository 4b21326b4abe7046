"""Line charts as SVG text: sharp at every size, a few kilobytes, no library in the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

LINE_COLORS = ("#1f5fd0", "#e0632c", "#1c9a76", "#9b4fc4", "#c9922a", "#d43d6a", "#4f6d7a")
MAX_POINTS = 600

_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34


@dataclass(frozen=True)
class Series:
    """A named line.

    Attributes:
        name: for the legend.
        x: k values, ascending.
        y: k finite values.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """A chart to draw.

    Attributes:
        title: printed above it.
        series: the lines.
        x_label: under the axis.
        log_y: logarithmic y axis; needs positive values.
        smooth: draw a moving mean over the faint raw line.
        x_range: (least, largest) x; None goes from 0 to the largest of the data.
        y_range: (least, largest) y; None takes them from the data.
    """

    title: str
    series: Sequence[Series]
    x_label: str = "iteration"
    log_y: bool = False
    smooth: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


def render_chart(chart: Chart) -> str:
    """The chart as a <figure> with a title, an inline <svg> and a legend."""
    x_low, x_high = chart.x_range or (0.0, max(v for s in chart.series for v in s.x))
    y_low, y_high = chart.y_range or _limits(v for s in chart.series for v in s.y)
    if chart.y_range is None and not chart.log_y:
        y_low, y_high = min(0.0, y_low), y_high + 0.05 * (y_high - min(0.0, y_low))
    axes = _Axes(x_low, x_high, y_low, y_high, chart.log_y)
    lines = [_render_line(s, axes, color, chart.smooth) for s, color in _colored(chart.series)]
    legend = "".join(
        f'<span><i style="background:{color}"></i>{escape(series.name)}</span>'
        for series, color in _colored(chart.series)
    )
    return (
        f'<figure class="chart"><h4>{escape(chart.title)}</h4>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
        f"{_render_grid(axes, chart.x_label)}{''.join(lines)}</svg>"
        f'<div class="legend">{legend if len(chart.series) > 1 else ""}</div></figure>'
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two limits, about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over up to `window` values around each value."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    half = window // 2
    ends = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[b] - sums[a]) / (b - a) for a, b in ends]


class _Axes:
    """Maps values to pixels of the drawing."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float, log_y: bool):
        self.log_y = log_y
        self.x_low, self.x_high = x_low, max(x_high, x_low + 1e-12)
        self.y_low, self.y_high = (
            (math.log10(y_low), math.log10(y_high)) if log_y else (y_low, y_high)
        )
        if self.y_high <= self.y_low:
            self.y_high = self.y_low + 1.0

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        value = math.log10(value) if self.log_y else value
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def y_ticks(self) -> list[float]:
        """Round numbers; on a logarithmic axis powers of ten, with 2 and 5 if few fit."""
        if not self.log_y:
            return ticks(self.y_low, self.y_high)
        low, high = math.floor(self.y_low), math.ceil(self.y_high)
        factors = (1,) if high - low > 3 else (1, 2, 5)
        found = [f * 10.0**e for e in range(low, high + 1) for f in factors]
        return [v for v in found if self.y_low <= math.log10(v) <= self.y_high]


def _render_grid(axes: _Axes, x_label: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value in axes.y_ticks():
        y = axes.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(axes.x_low, axes.x_high):
        x = axes.x(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{value:g}</text>')
    parts.append(
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    return "".join(parts)


def _render_line(series: Series, axes: _Axes, color: str, smooth: bool) -> str:
    raw = _path(series.x, series.y, axes)
    if not smooth or len(series.y) < 20:
        return f'<path class="line" stroke="{color}" d="{raw}"/>'
    # The mean of a logarithmic chart is taken where it is seen.
    values = [math.log10(v) for v in series.y] if axes.log_y else list(series.y)
    means = moving_mean(values, max(5, len(values) // 25))
    means = [10**v for v in means] if axes.log_y else means
    faint = f'<path class="line raw" stroke="{color}" d="{raw}"/>'
    return f'{faint}<path class="line" stroke="{color}" d="{_path(series.x, means, axes)}"/>'


def _path(x: Sequence[float], y: Sequence[float], axes: _Axes) -> str:
    stride = max(1, len(x) // MAX_POINTS)
    points = [
        f"{axes.x(a):.1f},{axes.y(b):.1f}" for a, b in zip(x[::stride], y[::stride], strict=True)
    ]
    return "M" + "L".join(points)


def _colored(series: Sequence[Series]) -> list[tuple[Series, str]]:
    return [(s, LINE_COLORS[i % len(LINE_COLORS)]) for i, s in enumerate(series)]


def _limits(values: Iterable[float]) -> tuple[float, float]:
    numbers = list(values)
    return min(numbers), max(numbers)
