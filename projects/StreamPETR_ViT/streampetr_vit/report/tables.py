"""The tables of the detection metrics as HTML."""

from __future__ import annotations

from collections.abc import Mapping
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
from streampetr_vit.report.cells import bar, best_values, cell, class_title, number, table, tile
from streampetr_vit.visualization.colors import class_colors, hex_color

Summary = Mapping[str, Any]


def headline_tiles(summary: Summary) -> str:
    """NDS, mAP and the five errors in large figures, each with its meaning."""
    tiles = "".join(
        tile(name, number(value), MEANINGS[name], name in ("NDS", "mAP"))
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
    best = best_values(list(rows.values()), ERROR_NAMES)
    heads = [f"AP {c.removeprefix('mAP_')}" if c.startswith("mAP_") else c for c in columns]
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(cell(row[c], row[c] == best.get(c)) for c in columns)
        + "</tr>"
        for name, row in rows.items()
    )
    return (
        '<h3>Runs side by side</h3><p class="soft">AP columns: mean over classes at one match '
        "distance. Higher is better for NDS and AP, lower for the errors.</p>"
        f"{table(['run', *heads], body)}"
    )


def class_table(runs: Mapping[str, Summary]) -> str:
    """A row per class of the first run, with the AP of the other runs beside it."""
    summary, *others = runs.values()
    absent = absent_classes(summary)
    colors = class_colors(list(summary["mean_dist_aps"]))
    body = []
    for name, (ap, *errors) in per_class_rows(summary):
        color = hex_color(colors[name])
        values = [*(float(other["mean_dist_aps"][name]) for other in others), *errors]
        # Grey: the class has no true box, and its row of zeros and ones says nothing.
        style = ' class="absent"' if name in absent else ""
        title, count = class_title(name, color), summary["num_gt_boxes"][name]
        body.append(
            f"<tr{style}><td>{title}</td><td>{count}</td>"
            f"{bar(ap, color)}{''.join(map(cell, values))}</tr>"
        )
    beside = [f"AP, {name}" for name in list(runs)[1:]]
    heads = ["class", "true boxes", "AP", *beside, *CLASS_COLUMNS[1:]]
    return table(heads, "".join(body))


def absent_note(summary: Summary) -> str:
    """Which classes have no true box, and the means without them."""
    names = ", ".join(absent_classes(summary)).replace("_", " ")
    means = ", ".join(f"{k} {number(v)}" for k, v in present_class_means(summary).items())
    return (
        f'<p class="soft">No true boxes of {escape(names)} in this set: the official mean counts '
        f"them as AP 0 and errors 1. Mean over the present classes: {escape(means)}.</p>"
    )
