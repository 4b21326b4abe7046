"""Writing files: each is whole, or absent under its name."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from synthetic_nuscenes.errors import WriteError


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name beside its own, then renames it.

    Raises:
        WriteError: the file cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)  # atomic: an interrupted run leaves no half file under the name
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WriteError(
            f"cannot write {path}: {error.strerror}; free some space or choose another folder, "
            "then start again: the scenes that are finished are kept"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, see `write_bytes`."""
    write_bytes(path, json.dumps(value).encode())
