"""A file of lines that grows, and survives that its writer is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.files import cannot_write


class PartFile:
    """Appends lines.

    Args:
        path: the file; its folder is made.
        lines: how many lines of it count. What is behind them is cut off: a process was killed
            after it had written that.

    Raises:
        InputError: it has fewer lines.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, lines: int) -> None:
        self._path = path
        with _output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b")
            for line in range(lines):
                if not self._file.readline().endswith(b"\n"):
                    self._file.close()
                    raise InputError(
                        f"{path} has {line} lines, and {lines} were written: someone changed it; "
                        "begin anew with --overwrite, or choose another --out"
                    )
            self._file.truncate(self._file.tell())

    def write(self, line: str) -> None:
        """Appends a line."""
        with _output_errors(self._path):
            self._file.write(line.encode() + b"\n")

    def save(self) -> None:
        """Brings all lines to the disk."""
        with _output_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        with _output_errors(self._path):
            self._file.close()


def lines_of(path: Path, count: int | None = None) -> Iterator[str]:
    """The first lines of a file, without their ends; None gives all.

    Raises:
        MissingFileError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number == count:
                    return
                yield line.rstrip("\n")
    except OSError as error:
        raise MissingFileError(
            f"{path} cannot be read: {error.strerror}; begin anew with --overwrite, or choose "
            "another --out"
        ) from error


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
