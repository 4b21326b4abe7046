"""Errors that a user can mend, and how a command-line tool ends."""

from __future__ import annotations

import logging
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from streampetr_vit.texts import printable

INTERRUPTED, PIPE_CLOSED = 130, 141  # what shells show for SIGINT and SIGPIPE


class UserError(Exception):
    """Something that the user can mend. The message names what is wrong, and the fix.

    The command-line tools print it as one line, without a traceback.
    """

    # Each subclass also derives from a built-in class, for callers in Python.


class ConfigError(UserError, ValueError):
    """The configuration file or an override of it is wrong."""


class InputError(UserError, ValueError):
    """A setting, an argument, a name or the content of a file is not allowed."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is needed does not exist."""


class OutputError(UserError, OSError):
    """A file cannot be written."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint file is missing, unreadable, or does not fit the model."""


def one_line(error: BaseException) -> str:
    """The message of an error in one line; of one from a loader's process, that process's own."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        # torch puts the whole traceback of the process into the message of the error.
        start = rf"^(?:[\w.]+\.)?{re.escape(type(error).__name__)}: "
        *_, text = re.split(start, text, flags=re.MULTILINE)
    key = getattr(error, "full_key", None)  # of OmegaConf
    if key:
        first = text.splitlines()[0]
        return f"the configuration has no {key}" if "issing key" in first else f"{key}: {first}"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


@contextmanager
def one_line_errors(*others: type[Exception]) -> Iterator[None]:
    """Ends the program with `NAME: error: message` and status 1 on a `UserError`.

    For the main functions of command-line tools, as a decorator or in a with statement. Ctrl-C ends
    the program with a line and status 130. A reader of the output that goes away, as `head` does,
    ends it without a word and with status 141. Every other exception passes and keeps its
    traceback.

    Args:
        others: further classes to treat so, of packages that cannot import this one.
    """
    kinds: tuple[type[Exception], ...] = (UserError, *others)
    tool = os.path.basename(sys.argv[0])
    try:
        with _log_errors_of_a_closed_pipe():
            yield
            sys.stdout.flush()  # here, where a closed pipe is caught; not when Python ends
    except kinds as error:
        # A text as status is printed to stderr; the status is then 1.
        # Escaped: a message may show names of files that someone else made.
        sys.exit(f"{tool}: error: {printable(one_line(error))}")
    except KeyboardInterrupt:
        print(f"{tool}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (BrokenPipeError, SystemExit):
        # argparse ends the program after --help, with the text still in the buffer.
        if not _drop_closed_streams():
            raise
        sys.exit(PIPE_CLOSED)


def _drop_closed_streams() -> bool:
    """Whether nobody reads stdout or stderr any more; what is still to be written is dropped."""
    closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
    for stream in closed:
        # Python flushes at its end once more, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(closed)


def _has_no_reader(stream: TextIO) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # closed, or not a file of the system
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextmanager
def _log_errors_of_a_closed_pipe() -> Iterator[None]:
    """Lets a closed pipe end the program when a log line meets it."""
    handle = logging.Handler.handleError

    # logging would print a traceback for each line and go on.
    def handle_error(self: logging.Handler, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        handle(self, record)

    logging.Handler.handleError = handle_error  # type: ignore[method-assign]
    try:
        yield
    finally:
        logging.Handler.handleError = handle  # type: ignore[method-assign]
