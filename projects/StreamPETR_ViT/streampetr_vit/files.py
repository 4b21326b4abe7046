"""Writing files so that a reader sees the old one or the whole new one."""

from __future__ import annotations

import errno
import os
import shutil
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


def check_space(folder: str | os.PathLike[str], needed: int, contents: str, fix: str) -> None:
    """Compares the free space of a folder's disk with what will be written.

    Args:
        folder: that exists.
        needed: bytes.
        contents: what may need them, for the message.
        fix: what to do if no space can be freed.

    Raises:
        OutputError: there is not enough.
    """
    usage = shutil.disk_usage(folder)
    # Some network file systems tell nothing.
    if usage.total > 0 and usage.free < needed:
        raise OutputError(
            f"{os.fspath(folder)} has {usage.free / 1e9:.3g} GB free, and {contents} may need "
            f"{needed / 1e9:.3g} GB: free some space, or {fix}"
        )


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # the folder is no folder, or is gone: there is nothing to remove
        return
