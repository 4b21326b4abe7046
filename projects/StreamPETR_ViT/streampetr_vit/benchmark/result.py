"""What a benchmark found and on which machine, as JSON and as tables."""

from __future__ import annotations

import json
import platform
import re
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from streampetr_vit.errors import OutputError

Row = dict[str, Any]


@dataclass
class Result:
    """The findings of one benchmark. The unit of a column is in its name.

    Attributes:
        benchmark: the sub-command.
        machine: of `describe_machine`.
        settings: what was measured.
        tables: rows by the name of the table. A row whose measurement failed has an "error".
        notes: sentences that belong to the numbers.
    """

    benchmark: str
    machine: Row
    settings: Row
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
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        machine = ", ".join(f"{k} {v}" for k, v in self.machine.items() if k != "command")
        lines = [f"{self.benchmark}: {settings}", machine, self.machine["command"]]
        for name, rows in self.tables.items():
            columns = list(dict.fromkeys(column for row in rows for column in row))
            cells = [[row.get(column) for column in columns] for row in rows]
            lines += ["", name, tabulate(cells, columns, floatfmt=".4g", missingval="-")]
        return "\n".join([*lines, "", *self.notes])


def describe_machine(device: torch.device) -> Row:
    """Hardware, versions, date and command of this process."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    processor = found[1].strip() if found else platform.processor() or platform.machine()
    on_gpu = device.type == "cuda"
    return {
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if on_gpu else processor,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def first_line(error: BaseException) -> str:
    """An error in one line, with its class."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), 'no message')}"
