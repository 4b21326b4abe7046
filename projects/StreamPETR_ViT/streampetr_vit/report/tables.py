"""The tables of the report as HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


def definition_list(items: Mapping[str, str]) -> str:
    """Names and values in columns."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
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


def run_table(runs: Mapping[str, Summary]) -> str:
    """A row per run: NDS, mAP, mean AP at each distance, and the errors. The best is bold."""
    rows = {}
    for name, summary in runs.items():
        numbers = headline_numbers(summary)
        # The errors move behind the AP columns: the table reads from what rises to what falls.
        errors = {key: numbers.pop(key) for key in ERROR_NAMES}
        rows[name] = {**numbers, **ap_at_distances(summary), **errors}
    columns = list(next(iter(rows.values())))
    best = {}
    if len(rows) > 1:  # a run alone is not the best of anything
        for column in columns:
            values = [row[column] for row in rows.values() if not math.isnan(row[column])]
            choose = min if column in ERROR_NAMES else max
            best[column] = choose(values, default=math.nan)  # which equals nothing
    heads = [f"AP {c.removeprefix('mAP_')}" if c.startswith("mAP_") else c for c in columns]
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(_cell(row[c], row[c] == best.get(c)) for c in columns)
        + "</tr>"
        for name, row in rows.items()
    )
    return (
        '<h3>Runs side by side</h3><p class="soft">AP columns: mean over classes at one match '
        "distance. Higher is better for NDS and AP, lower for the errors.</p>"
        f"{_table(['run', *heads], body)}"
    )


def class_table(runs: Mapping[str, Summary]) -> str:
    """A row per class of the first run, with the AP of the other runs beside it."""
    summary, *others = runs.values()
    absent = absent_classes(summary)
    colors = class_colors(list(summary["mean_dist_aps"]))
    body = []
    for name, (ap, *errors) in per_class_rows(summary):
        color = hex_color(colors[name])
        title = f'<i class="swatch" style="background:{color}"></i>{escape(name.replace("_", " "))}'
        values = [*(float(other["mean_dist_aps"][name]) for other in others), *errors]
        # Grey: the class has no true box, and its row of zeros and ones says nothing.
        style = ' class="absent"' if name in absent else ""
        body.append(
            f"<tr{style}><td>{title}</td><td>{summary['num_gt_boxes'][name]}</td>"
            f"{_bar(ap, color)}{''.join(map(_cell, values))}</tr>"
        )
    beside = [f"AP, {name}" for name in list(runs)[1:]]
    heads = ["class", "true boxes", "AP", *beside, *CLASS_COLUMNS[1:]]
    return _table(heads, "".join(body))


def absent_note(summary: Summary) -> str:
    """Which classes have no true box, and the means without them."""
    names = ", ".join(absent_classes(summary)).replace("_", " ")
    means = ", ".join(f"{k} {_number(v)}" for k, v in present_class_means(summary).items())
    return (
        f'<p class="soft">No true boxes of {escape(names)} in this set: the official mean counts '
        f"them as AP 0 and errors 1. Mean over the present classes: {escape(means)}.</p>"
    )


def _table(heads: Sequence[str], body: str) -> str:
    cells = "".join(f"<th>{escape(head)}</th>" for head in heads)
    return (
        f'<div class="card scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(value: float, best: bool = False) -> str:
    style = "none" if math.isnan(value) else "best" if best else ""
    return f'<td class="{style}">{_number(value)}</td>' if style else f"<td>{_number(value)}</td>"


def _bar(value: float, color: str) -> str:
    return (
        f'<td class="bar"><div><i style="--w:{100 * value:.1f}%;background:{color}"></i>'
        f"<b>{_number(value)}</b></div></td>"
    )


def _number(value: float) -> str:
    # A dash stands for an error that no box of the class defines.
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.3f}"
