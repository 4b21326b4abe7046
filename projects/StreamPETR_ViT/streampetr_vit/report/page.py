"""The report of a run: one HTML file that needs nothing beside itself, and no network.

`ReportInput` says what is shown, `write_report` writes it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from streampetr_vit.evaluation.metric_tables import absent_classes
from streampetr_vit.files import replacing
from streampetr_vit.report import tables, tracking_tables
from streampetr_vit.report.cells import definition_list
from streampetr_vit.report.charts import Chart, render_chart
from streampetr_vit.report.curves import Scalars, training_charts
from streampetr_vit.report.style import STYLE
from streampetr_vit.report.tables import Summary
from streampetr_vit.visualization.drawing import Image
from streampetr_vit.visualization.encoding import encode_jpeg

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class PictureGroup:
    """Pictures that belong together, such as consecutive frames.

    Attributes:
        title: heading.
        text: what the reader sees.
        pictures: caption -> picture, in order.
    """

    title: str
    text: str
    pictures: Mapping[str, Image]


@dataclass(frozen=True)
class ReportInput:
    """What a report shows. Empty parts are left out.

    Attributes:
        title: heading of the page.
        subtitle: one line under it.
        notes: what a reader must know to judge the numbers.
        facts: name -> value, what was run.
        runs: name -> content of metrics_summary.json; the first is the main run.
        details: content of metrics_details.json of the main run.
        tracking: name of a tracker -> what `read_tracking_summary` returns; the first is the main
            one.
        scalars: of the training, see `read_scalars`.
        picture_groups: drawn frames.
        config_text: the configuration, in full.
        environment: name -> version.
    """

    title: str
    subtitle: str = ""
    notes: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, Summary] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    tracking: Mapping[str, Summary] = field(default_factory=dict)
    scalars: Scalars = field(default_factory=dict)
    picture_groups: Sequence[PictureGroup] = ()
    config_text: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def write_report(output_dir: str | Path, report: ReportInput) -> Path:
    """Writes report.html into a folder, which is created if need be; returns the file's path."""
    path = Path(output_dir) / REPORT_FILE
    with replacing(path) as temporary:
        temporary.write_text(render_report(report), encoding="utf-8")
    return path


def render_report(report: ReportInput) -> str:
    """The text of the HTML file."""
    sections = [  # what a reader wants first, and what made the numbers last
        _header(report),
        _metric_section(report.runs, report.details),
        _tracking_section(report.tracking),
        _curve_section(report.scalars),
        *map(_picture_section, report.picture_groups),
        _config_section(report),
    ]
    # Style, curves and pictures are inside the page: it can be mailed, and opened offline.
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _header(report: ReportInput) -> str:
    parts = [f"<h1>{escape(report.title)}</h1>"]
    if report.subtitle:
        parts.append(f'<p class="soft">{escape(report.subtitle)}</p>')
    if report.facts:
        parts.append(definition_list(report.facts))
    if report.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
        parts.append(f'<div class="notes"><ul>{notes}</ul></div>')
    return f"<header>{''.join(parts)}</header>"


def _metric_section(runs: Mapping[str, Summary], details: Mapping[str, Any]) -> str:
    if not runs:
        return ""
    main = next(iter(runs.values()))  # tiles and curves are its; the tables have all
    parts = [
        f"<section><h2>Detection metrics</h2>{tables.headline_tiles(main)}",
        tables.run_table(runs),
        tables.absent_note(main) if absent_classes(main) else "",
        "<h3>Per class</h3>",
        tables.class_table(runs),
    ]
    if details:
        parts.append("<h3>Precision over recall, by match distance</h3>")
        parts.append(_precision_recall(details, main))
    return "".join(parts) + "</section>"


def _tracking_section(trackers: Mapping[str, Summary]) -> str:
    if not trackers:
        return ""
    main = next(iter(trackers.values()))
    parts = [
        f"<section><h2>Tracking metrics</h2>{tracking_tables.headline_tiles(main)}",
        tracking_tables.tracker_table(trackers) if len(trackers) > 1 else "",
        tracking_tables.absent_note(main) if main["absent"] else "",
        "<h3>Per class</h3>",
        tracking_tables.class_table(trackers),
    ]
    return "".join(parts) + "</section>"


def _precision_recall(details: Mapping[str, Any], summary: Summary) -> str:
    """One small chart per class with a line per match distance."""
    lines: dict[str, dict[str, dict[float, float]]] = {name: {} for name in summary["label_aps"]}
    for key, data in details.items():
        name, _, distance = key.partition(":")  # such as "car:0.5"
        curve = dict(zip(data["recall"], data["precision"], strict=True))
        lines[name][f"{float(distance):g} m"] = curve
    charts = [
        render_chart(Chart(name.replace("_", " "), curves, "recall", y_max=1.0))
        for name, curves in lines.items()
        if curves
    ]
    return f'<div class="charts small">{"".join(charts)}</div>'


def _curve_section(scalars: Scalars) -> str:
    charts = "".join(render_chart(chart) for chart in training_charts(scalars))
    if not charts:
        return ""
    return (
        '<section><h2>Training</h2><p class="soft">Faint: as logged. Strong: moving mean. Losses '
        "are those of the last decoder layer; the total is the sum over all layers.</p>"
        f'<div class="charts">{charts}</div></section>'
    )


def _picture_section(group: PictureGroup) -> str:
    figures = []
    for caption, image in group.pictures.items():
        # JPEG: as PNG a page of seven frames would be tens of megabytes.
        data = base64.b64encode(encode_jpeg(image)).decode()
        figures.append(
            f'<figure class="picture"><img alt="{escape(caption)}" '
            f'src="data:image/jpeg;base64,{data}"><figcaption>{escape(caption)}</figcaption>'
            "</figure>"
        )
    return (
        f'<section><h2>{escape(group.title)}</h2><p class="soft">{escape(group.text)}</p>'
        f"{''.join(figures)}</section>"
    )


def _config_section(report: ReportInput) -> str:
    parts = []
    if report.environment:
        parts.append(f"<h2>Environment</h2>{definition_list(report.environment)}")
    if report.config_text:
        # Folded: it has hundreds of lines.
        parts.append(
            "<details><summary>Configuration</summary>"
            f'<div class="card"><pre>{escape(report.config_text)}</pre></div></details>'
        )
    return f"<section>{''.join(parts)}</section>" if parts else ""
