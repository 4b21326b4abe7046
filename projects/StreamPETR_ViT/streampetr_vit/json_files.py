"""Reads JSON files that may come from anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streampetr_vit.downloads import left_instead
from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.texts import printable


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file.

    Raises:
        MissingFileError: it cannot be read.
        InputError: it is no JSON.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror or error}") from error
    if instead := left_instead(data[:512]):
        raise InputError(f"{path} is not valid JSON but {instead}")
    try:
        return json.loads(data.decode("utf-8"))
    # No JSON, no UTF-8, an int of more than 4300 digits; lists nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid JSON ({printable(error)}); write or copy it again"
        ) from error


def read_json_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, Any]]:
    """The number of each line, and what it holds as JSON; empty lines are passed over.

    Raises:
        MissingFileError: the file cannot be read.
        InputError: a line is no JSON; names its number.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _value_of(line, f"{os.fspath(path)}, line {number}")
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror or error}") from error


def _value_of(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} is no JSON object in UTF-8 ({printable(error)}); write one object in each "
            "line"
        ) from error
