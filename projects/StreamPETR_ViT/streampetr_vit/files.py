"""Writing files so that a reader sees the old one or the whole new one."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
