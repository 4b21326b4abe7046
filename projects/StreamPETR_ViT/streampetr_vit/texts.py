"""Texts of strangers' files: shown on one line, made into file names, compared with known ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_FILE_NAME_CHARACTERS = 50  # with four bytes each, and what a program adds, below 255 bytes


def printable(text: object) -> str:
    """The text with its control characters escaped, except for line breaks."""
    # A terminal obeys such characters: they can rename its window, or hide what was printed.
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def shown(value: object, limit: int = 80) -> str:
    """A value as Python writes it, cut to a length."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # a list of lists of lists, an int of 5000 digits
        text = f"<{type(value).__name__}>"
    return printable(text if len(text) <= limit else f"{text[:limit]}...")


def file_name(text: str) -> str:
    """A part of a file name made of any text: no folders, no dot in front, not too long."""
    return re.sub(r"[^\w.+-]", "_", text).lstrip(".")[:_FILE_NAME_CHARACTERS]


def name_list(names: Iterable[object], limit: int = 20) -> str:
    """Names with commas between them, and how many more there are."""
    texts = [str(name) if str(name).isprintable() else shown(name) for name in names]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> list[str]:
    """At most three of the known names that look most like a name, the best first.

    Args:
        name: what someone wrote.
        known: what exists.
        likeness: that counts, from 0 to 1, as `difflib` measures it.
    """
    # Names are compared without case: "Car" means "car".
    by_lower = {other.lower(): other for other in known}
    return [by_lower[n] for n in difflib.get_close_matches(name.lower(), by_lower, 3, likeness)]
