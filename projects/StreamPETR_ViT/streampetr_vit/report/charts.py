"""Line charts as SVG text: sharp at every size, a few kilobytes, no library in the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

LINE_COLORS = ("#1f5fd0", "#e0632c", "#1c9a76", "#9b4fc4", "#c9922a", "#d43d6a", "#4f6d7a")
MAX_POINTS = 600  # of a line: more than the pixels that it is seen with
_FEWEST_SMOOTHED = 20  # the mean of a short line would hide what little it shows

# Units of the drawing, which the page scales: the plot is inside these margins.
_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 408, 12, 196


@dataclass(frozen=True)
class Chart:
    """A chart to draw.

    Attributes:
        title: printed above it.
        lines: name -> {x: y}; x ascending and not below 0, y finite.
        x_label: under the axis.
        log_y: logarithmic y axis; needs positive values.
        smooth: draw a moving mean over the faint raw line.
        y_max: upper end of a linear y axis; None takes it from the data.
    """

    title: str
    lines: Mapping[str, Mapping[float, float]]
    x_label: str = "iteration"
    log_y: bool = False
    smooth: bool = False
    y_max: float | None = None


def render_chart(chart: Chart) -> str:
    """The chart as a <figure> with a title, an inline <svg> and a legend."""
    axes = _Axes(chart)
    drawn, legend = [], []
    for number, (name, points) in enumerate(chart.lines.items()):
        color = LINE_COLORS[number % len(LINE_COLORS)]
        drawn.append(_render_line(points, axes, color, chart.smooth))
        legend.append(f'<span><i style="background:{color}"></i>{escape(name)}</span>')
    # A line alone needs no legend: the title names it. The empty one keeps the charts equal.
    return (
        f'<figure class="chart"><h4>{escape(chart.title)}</h4>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
        f"{_render_grid(axes, chart.x_label)}{''.join(drawn)}</svg>"
        f'<div class="legend">{"".join(legend) if len(legend) > 1 else ""}</div></figure>'
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two limits, about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough)
    # A limit that is a round number counts, though its quotient may be rounded past it.
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over up to `window` values around each value."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    half = window // 2
    # At the ends of the line the window is cut.
    ends = [(max(0, i - half), min(len(values), i + half + 1)) for i in range(len(values))]
    return [(sums[b] - sums[a]) / (b - a) for a, b in ends]


class _Axes:
    """Maps values of a chart to places in the drawing."""

    def __init__(self, chart: Chart) -> None:
        # A logarithmic axis is a linear one of logarithms: these are placed, and averaged.
        self.log_y, self.shown = chart.log_y, math.log10 if chart.log_y else float
        values = [self.shown(y) for points in chart.lines.values() for y in points.values()]
        self.y_low, self.y_high = min(values), max(values)
        if not chart.log_y:
            # A linear axis starts at 0, and has room above the largest value.
            self.y_low = min(0.0, self.y_low)
            self.y_high += 0.05 * (self.y_high - self.y_low)
        if chart.y_max is not None:
            self.y_high = chart.y_max
        # One value alone gives no range to divide by.
        if self.y_high <= self.y_low:
            self.y_high = self.y_low + 1.0
        self.x_high = max(1e-12, *(max(points) for points in chart.lines.values()))

    def x(self, value: float) -> float:
        return _LEFT + value / self.x_high * (_RIGHT - _LEFT)

    def y(self, shown: float) -> float:
        # The y of an SVG counts downwards.
        return _BOTTOM - (shown - self.y_low) / (self.y_high - self.y_low) * (_BOTTOM - _TOP)

    def y_ticks(self) -> list[float]:
        """Round numbers; on a logarithmic axis powers of ten, with 2 and 5 if few fit."""
        if not self.log_y:
            return ticks(self.y_low, self.y_high)
        low, high = math.floor(self.y_low), math.ceil(self.y_high)
        factors = (1,) if high - low > 3 else (1, 2, 5)
        found = [f * 10.0**e for e in range(low, high + 1) for f in factors]
        return [v for v in found if self.y_low <= math.log10(v) <= self.y_high]


def _render_grid(axes: _Axes, x_label: str) -> str:
    parts = []
    for value in axes.y_ticks():
        y = axes.y(axes.shown(value))
        # 3.5 lower: half the height of a figure, whose base line is what SVG places.
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(0.0, axes.x_high):
        x = axes.x(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_BOTTOM + 14}" text-anchor="middle">{value:g}</text>')
    parts.append(
        f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    return "".join(parts)


def _render_line(points: Mapping[float, float], axes: _Axes, color: str, smooth: bool) -> str:
    values = [axes.shown(y) for y in points.values()]
    line = f'<path class="line" stroke="{color}" d="{_path(points, values, axes)}"/>'
    if not smooth or len(values) < _FEWEST_SMOOTHED:
        return line
    # Smoothed before it is thinned out: no value is lost from the mean.
    means = moving_mean(values, max(5, len(values) // 25))
    faint = line.replace('class="line"', 'class="line raw"')
    return f'{faint}<path class="line" stroke="{color}" d="{_path(points, means, axes)}"/>'


def _path(x: Iterable[float], y: Sequence[float], axes: _Axes) -> str:
    stride = max(1, len(y) // MAX_POINTS)
    places = [f"{axes.x(a):.1f},{axes.y(b):.1f}" for a, b in zip(x, y, strict=True)]
    return "M" + "L".join(places[::stride])
