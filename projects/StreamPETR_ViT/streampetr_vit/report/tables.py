"""The tables of the report as HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from streampetr_vit.evaluation.metric_tables import (
    CLASS_COLUMNS,
    ERROR_NAMES,
    MEANINGS,
    absent_classes,
    ap_at_distances,
    headline_numbers,
    per_class_rows,
    present_class_means,
)
from streampetr_vit.visualization.colors import class_colors, hex_color

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class MetricRun:
    """One evaluation.

    Attributes:
        name: for example "memory on" or "memory off at test".
        summary: content of its metrics_summary.json.
        details: content of its metrics_details.json, for precision-recall curves; None for none.
    """

    name: str
    summary: Summary
    details: Mapping[str, Any] | None = None


def definition_list(items: Mapping[str, str]) -> str:
    """Names and values in columns."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in items.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def headline_tiles(summary: Summary) -> str:
    """NDS, mAP and the five errors in large figures, each with its meaning."""
    tiles = "".join(
        f'<div class="card tile{" main" if name in ("NDS", "mAP") else ""}"><span>{name}</span>'
        f"<b>{_number(value)}</b><small>{escape(MEANINGS[name])}</small></div>"
        for name, value in headline_numbers(summary).items()
    )
    return f'<div class="tiles">{tiles}</div>'


def run_table(runs: Sequence[MetricRun]) -> str:
    """A row per run: NDS, mAP, mean AP at each distance, and the errors. The best is bold."""
    rows = []
    for run in runs:
        numbers = headline_numbers(run.summary)
        errors = {key: numbers.pop(key) for key in ERROR_NAMES}
        rows.append((run.name, {**numbers, **ap_at_distances(run.summary), **errors}))
    columns = list(rows[0][1])
    header = "".join(f"<th>{_column_title(c)}</th>" for c in columns)
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(_cell(values[c], _is_best(values[c], c, rows)) for c in columns)
        + "</tr>"
        for name, values in rows
    )
    return (
        '<h3>Runs side by side</h3><p class="soft">AP columns: mean over classes at one match '
        "distance. Higher is better for NDS and AP, lower for the errors.</p>"
        f'<div class="card scroll"><table><thead><tr><th>run</th>{header}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def class_table(runs: Sequence[MetricRun]) -> str:
    """A row per class of the first run, with the AP of the other runs beside it."""
    summary, others = runs[0].summary, runs[1:]
    absent = absent_classes(summary)
    extra = "".join(f"<th>AP, {escape(run.name)}</th>" for run in others)
    errors = "".join(f"<th>{name}</th>" for name in CLASS_COLUMNS[1:])
    colors = class_colors([name for name, _ in per_class_rows(summary)])
    body = []
    for name, (ap, *values) in per_class_rows(summary):
        color = hex_color(colors[name])
        title = f'<i class="swatch" style="background:{color}"></i>{escape(name.replace("_", " "))}'
        cells = "".join(_cell(float(run.summary["mean_dist_aps"][name])) for run in others)
        cells += "".join(_cell(value) for value in values)
        style = ' class="absent"' if name in absent else ""
        body.append(
            f"<tr{style}><td>{title}</td><td>{summary['num_gt_boxes'][name]}</td>"
            f"{_bar(ap, color)}{cells}</tr>"
        )
    return (
        '<div class="card scroll"><table><thead><tr><th>class</th><th>true boxes</th><th>AP</th>'
        f"{extra}{errors}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def absent_note(summary: Summary) -> str:
    """Which classes have no true box, and the means without them."""
    names = ", ".join(absent_classes(summary)).replace("_", " ")
    means = ", ".join(f"{k} {_number(v)}" for k, v in present_class_means(summary).items())
    return (
        f'<p class="soft">No true boxes of {escape(names)} in this set: the official mean counts '
        f"them as AP 0 and errors 1. Mean over the present classes: {escape(means)}.</p>"
    )


def _column_title(column: str) -> str:
    return f"AP {column.removeprefix('mAP_')}" if column.startswith("mAP_") else column


def _is_best(value: float, column: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> bool:
    if len(rows) < 2 or math.isnan(value):
        return False
    values = [row[column] for _, row in rows if not math.isnan(row[column])]
    return value == (min(values) if column in ERROR_NAMES else max(values))


def _cell(value: float, best: bool = False) -> str:
    if math.isnan(value):
        return '<td class="none">&ndash;</td>'
    return f"<td{' class=best' if best else ''}>{_number(value)}</td>"


def _bar(value: float, color: str) -> str:
    width = f"{100 * min(max(value, 0.0), 1.0):.1f}%"
    return (
        f'<td class="bar"><div><i style="--w:{width};background:{color}"></i>'
        f"<b>{_number(value)}</b></div></td>"
    )


def _number(value: float) -> str:
    return "&ndash;" if math.isnan(value) else f"{value:.3f}"
