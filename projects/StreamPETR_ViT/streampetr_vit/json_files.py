"""Reads JSON files that may come from anywhere."""

from __future__ import annotations

import json
import os
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
