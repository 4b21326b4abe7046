"""What a benchmark found, as JSON and as tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from streampetr_vit.errors import OutputError

Row = dict[str, Any]


@dataclass
class Report:
    """The findings of one benchmark. The unit of a column is in its name.

    Attributes:
        benchmark: the sub-command.
        machine: of `describe_machine`.
        settings: what was measured.
        tables: rows by the name of the table. A row whose measurement failed has an "error".
        notes: sentences that belong to the numbers.
    """

    benchmark: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    tables: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a row has an error."""
        return any("error" in row for rows in self.tables.values() for row in rows)

    def write(self, path: str | Path) -> None:
        """Writes JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        try:
            Path(path).write_text(json.dumps(vars(self), indent=2, default=str) + "\n")
        except OSError as error:
            raise OutputError(f"--output {path}: {error.strerror or error}") from error

    def __str__(self) -> str:
        machine = ", ".join(
            f"{value}" if name in ("processor", "date") else f"{name} {value}"
            for name, value in self.machine.items()
            if name not in ("device", "command")
        )
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [f"{self.benchmark}: {settings}", machine, str(self.machine["command"])]
        for name, rows in self.tables.items():
            lines += ["", name, _table(rows)]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)


def _table(rows: list[Row]) -> str:
    """Columns in the order of their first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name) for name in columns] for row in rows]
    return tabulate(cells, headers=columns, floatfmt=".4g", missingval="-")


def first_line(error: BaseException) -> str:
    """An error in one line, with its class."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"
