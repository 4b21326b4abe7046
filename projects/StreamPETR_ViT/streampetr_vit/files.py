"""Writing files so that a reader sees the old one or the whole new one."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streampetr_vit.errors import OutputError, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: str | os.PathLike[str], ending: str = "") -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place when the block is done.

    The folder is made if it does not exist. Where the block raises, or the program is interrupted,
    the temporary file is removed and an old file at `path` stays as it is.

    Args:
        path: the file to write.
        ending: of the temporary name, for writers that choose a format by it.

    Yields:
        An empty file in the same folder, with a name that no other writer has.

    Raises:
        OutputError: the file cannot be written: a full disk, a missing right. Every OSError of the
            block that is no UserError counts as one.
    """
    path = Path(path)
    # Not the process's number: processes of several machines may share the folder.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        usual_rights = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        # Some libraries (safetensors) make files that only their owner can read.
        temporary.chmod(usual_rights)
        # Without it a power cut may leave the new name with none of the content.
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except UserError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        _remove(temporary)


def cannot_write(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The error for a user whose file or folder cannot be written."""
    if error.errno in _FULL:
        fix = "free some space there, or choose another folder"
    else:
        fix = "check the folder and its rights, or choose another folder"
    reason = error.strerror or str(error) or type(error).__name__
    return OutputError(f"cannot write {os.fspath(path)!r}: {reason}; {fix}")


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # the folder is no folder, or is gone: there is nothing to remove
        return
