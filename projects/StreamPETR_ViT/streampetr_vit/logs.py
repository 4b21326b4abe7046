"""What a run logs once, however often the code comes by."""

from __future__ import annotations

import logging

_SAID: set[tuple[str, str]] = set()  # name of the logger, message


def log_once(logger: logging.Logger, level: int, message: str) -> None:
    """Logs a message, unless this logger has logged the same one since `forget_logged`.

    A data set is opened by the loader, the evaluator and the report; its notes are the same.
    """
    if (logger.name, message) not in _SAID:
        _SAID.add((logger.name, message))
        logger.log(level, "%s", message)


def forget_logged() -> None:
    """Begins a new run: what was logged once is logged once more."""
    _SAID.clear()
