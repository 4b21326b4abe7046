"""The tables of the tracking metrics as HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from streampetr_vit.report.cells import bar, best_values, cell, class_title, number, table, tile
from streampetr_vit.report.tables import Summary
from streampetr_vit.visualization.colors import class_colors, hex_color

# For people who meet the numbers in a report.
MEANINGS = {
    "AMOTA": "tracking score, 0 to 1: objects found that keep their id, few false tracks; average "
    "over all recalls",
    "AMOTP": "distance of tracks from their objects, metres, 0 to 2: lower is better",
    "MOTA": "1 - (missed + false boxes + id switches) / true boxes at the best score threshold, "
    "never below 0",
    "IDS": "id switches: how often an object got another id",
    "FRAG": "fragmentations: how often an object was lost and found again",
}
# Names in the tables -> the devkit's.
COLUMNS = {
    "AMOTA": "amota",
    "AMOTP": "amotp",
    "MOTA": "mota",
    "recall": "recall",
    "IDS": "ids",
    "FRAG": "frag",
}
_LOWER_IS_BETTER = ("AMOTP", "IDS", "FRAG")
_COUNTS = ("IDS", "FRAG")


def headline_tiles(summary: Summary) -> str:
    """AMOTA, AMOTP, MOTA, IDS and FRAG in large figures, each with its meaning."""
    tiles = "".join(
        tile(name, number(summary[COLUMNS[name]], _digits(name)), meaning, name == "AMOTA")
        for name, meaning in MEANINGS.items()
    )
    return f'<div class="tiles">{tiles}</div>'


def tracker_table(trackers: Mapping[str, Summary]) -> str:
    """A row per tracker. The best is bold."""
    rows = {name: _row(summary) for name, summary in trackers.items()}
    best = best_values(list(rows.values()), _LOWER_IS_BETTER)
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(cell(value, value == best[c], _digits(c)) for c, value in row.items())
        + "</tr>"
        for name, row in rows.items()
    )
    return (
        '<h3>Trackers side by side</h3><p class="soft">Higher is better for AMOTA, MOTA and '
        "recall, lower for the others.</p>"
        f"{table(['tracker', *COLUMNS], body)}"
    )


def class_table(trackers: Mapping[str, Summary]) -> str:
    """A row per class of the first tracker, with the AMOTA of the others beside it."""
    summary, *others = trackers.values()
    classes = summary["label_metrics"]
    colors = class_colors(list(classes))
    body = []
    for name, values in classes.items():
        color = hex_color(colors[name])
        amota, *row = (values[metric] for metric in COLUMNS.values())
        beside = [other["label_metrics"].get(name, {}).get("amota", math.nan) for other in others]
        cells = [cell(value) for value in beside]
        cells += [cell(v, digits=_digits(c)) for c, v in zip(list(COLUMNS)[1:], row, strict=True)]
        count = cell(summary["num_gt_boxes"][name], digits=0)
        cells.insert(0, cell(amota) if math.isnan(amota) else bar(amota, color))
        title = class_title(name, color)
        body.append(f"<tr><td>{title}</td>{count}{''.join(cells)}</tr>")
    beside_names = [f"AMOTA, {name}" for name in list(trackers)[1:]]
    heads = ["class", "true boxes", "AMOTA", *beside_names, *list(COLUMNS)[1:]]
    return table(heads, "".join(body))


def absent_note(summary: Summary) -> str:
    """Which classes have no true box."""
    names = ", ".join(summary["absent"]).replace("_", " ")
    return (
        f'<p class="soft">No true boxes of {escape(names)} in this set: the means are over the '
        "other classes.</p>"
    )


def _row(summary: Summary) -> dict[str, float]:
    return {name: summary[metric] for name, metric in COLUMNS.items()}


def _digits(column: str) -> int:
    return 0 if column in _COUNTS else 3
