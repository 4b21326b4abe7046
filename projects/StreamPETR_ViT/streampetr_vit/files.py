"""Writing files so that a reader sees the old one or the whole new one; reading JSON of others."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streampetr_vit.errors import InputError, MissingFileError
from streampetr_vit.texts import printable


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place when the block is done.

    The folder is made if it does not exist. Where the block raises, or the program is interrupted,
    the temporary file is removed and an old file at `path` stays as it is.

    Args:
        path: the file to write.

    Yields:
        An empty file in the same folder, with a name that no other writer has.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process's number: processes of several machines may share the folder.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        temporary.touch(exist_ok=False)
        usual_rights = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        # Some libraries (safetensors) make files that only their owner can read.
        temporary.chmod(usual_rights)
        # Without it a power cut may leave the new name with none of the content.
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file that may come from anywhere.

    Raises:
        MissingFileError: it cannot be read.
        InputError: it is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror or error}") from error
    # No JSON, no UTF-8, an int of more than 4300 digits; lists nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid JSON ({printable(error)}); write or copy it again"
        ) from error
