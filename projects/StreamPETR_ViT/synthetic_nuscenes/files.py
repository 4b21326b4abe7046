"""Writing files: each is whole, or absent under its name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name beside its own, then renames it."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)  # atomic: an interrupted run leaves no half file under the name


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON, see `write_bytes`."""
    write_bytes(path, json.dumps(value).encode())
