"""Errors that a user can mend. All other exceptions are faults of this program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from streampetr_vit.texts import printable


class UserError(Exception):
    """Something that the user can mend. The message names what is wrong, and the fix.

    The command-line tools print it as one line, without a traceback.
    """

    # Each subclass also derives from a built-in class, for callers in Python.


class InputError(UserError, ValueError):
    """A setting, an argument, a name or the content of a file is not allowed."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is needed does not exist."""


class OutputError(UserError, OSError):
    """A file cannot be written."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint file is missing, unreadable, or does not fit the model."""


@contextmanager
def one_line_errors(*others: type[Exception]) -> Iterator[None]:
    """Ends the program with `NAME: error: message` and status 1 on a `UserError`.

    Ctrl-C ends it with one line and status 130.

    For the main functions of command-line tools, as a decorator or in a with statement. Every other
    exception passes and keeps its traceback.

    Args:
        others: further classes to treat so, of packages that cannot import this one.
    """
    kinds: tuple[type[Exception], ...] = (UserError, *others)
    try:
        yield
    except kinds as error:
        # A text as status is printed to stderr; the status is then 1.
        # Escaped: a message may show names of files that someone else made.
        sys.exit(f"{os.path.basename(sys.argv[0])}: error: {printable(error)}")
    except KeyboardInterrupt:
        print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
        sys.exit(130)  # what shells expect of a program that SIGINT ended
