"""What the tables of the report are made of, as HTML."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape


def definition_list(items: Mapping[str, str]) -> str:
    """Names and values in columns."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in items.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def tile(name: str, text: str, meaning: str, is_main: bool) -> str:
    """A number in large figures, and what it means."""
    return (
        f'<div class="card tile{" main" if is_main else ""}"><span>{escape(name)}</span>'
        f"<b>{text}</b><small>{escape(meaning)}</small></div>"
    )


def table(heads: Sequence[str], body: str) -> str:
    """A table of rows <tr>."""
    cells = "".join(f"<th>{escape(head)}</th>" for head in heads)
    return (
        f'<div class="card scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def cell(value: float, best: bool = False, digits: int = 3) -> str:
    """A number in a table."""
    style = "none" if math.isnan(value) else "best" if best else ""
    text = number(value, digits)
    return f'<td class="{style}">{text}</td>' if style else f"<td>{text}</td>"


def bar(value: float, color: str) -> str:
    """A share in a table, with a bar as long."""
    return (
        f'<td class="bar"><div><i style="--w:{100 * value:.1f}%;background:{color}"></i>'
        f"<b>{number(value)}</b></div></td>"
    )


def class_title(name: str, color: str) -> str:
    """The name of a class behind its colour."""
    return f'<i class="swatch" style="background:{color}"></i>{escape(name.replace("_", " "))}'


def number(value: float, digits: int = 3) -> str:
    """Its text; a dash for a value that nothing defines."""
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.{digits}f}"


def best_values(
    rows: Sequence[Mapping[str, float]], lower_is_better: Collection[str]
) -> dict[str, float]:
    """The best value of each column; empty for a single row, which is not the best of anything."""
    best = {}
    for column in rows[0] if len(rows) > 1 else ():
        values = [row[column] for row in rows if not math.isnan(row[column])]
        choose = min if column in lower_is_better else max
        best[column] = choose(values, default=math.nan)  # which equals nothing
    return best
