"""Errors that a user can mend, apart from those that are faults of this program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can mend. The message names what is wrong, and the fix.

    The command-line tools print it as one line, without a traceback. Each subclass also derives
    from the built-in class that fits it, for callers in Python.
    """


class InputError(UserError, ValueError):
    """A setting, an argument, a name or the content of a file is not allowed."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is needed does not exist."""


class OutputError(UserError, OSError):
    """A file cannot be written."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint file is missing, unreadable, or does not fit the model."""


class FolderTakenError(UserError, FileExistsError):
    """What is at a place where something shall be made is not to be overwritten."""


@contextmanager
def one_line_errors(*others: type[Exception]) -> Iterator[None]:
    """Ends the program with `NAME: error: message` and status 1 on a `UserError`.

    For the main functions of command-line tools, as a decorator or in a with statement. Every other
    exception passes, and keeps its traceback.

    Args:
        others: classes to treat the same way, of packages that do not know this one.
    """
    kinds: tuple[type[Exception], ...] = (UserError, *others)
    try:
        yield
    except kinds as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: error: {error}")
