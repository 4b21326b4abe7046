"""Progress of long work: a bar on a terminal, a line every ten seconds in a log file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

LINE_SECONDS = 10.0

T = TypeVar("T")


class Progress:
    """Counts work that is done; a context manager.

    Args:
        what: name of the work.
        total: how much there is; None where it is not known.
        unit: what is counted.
    """

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._started = self._said = time.monotonic()
        # A bar is one line that is written over and over: in a file it would be hundreds.
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1) -> None:
        """Adds to what is done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            of = "" if self.total is None else f" of {self._shown(self.total)}"
            seconds = self._said - self._started
            line = f"{self.what}: {self._shown(self.done)}{of}, {seconds:.0f} s"
            print(line, file=sys.stderr, flush=True)

    def _shown(self, count: int) -> str:
        return f"{count / 1e6:.0f} MB" if self.unit == "B" else f"{count} {self.unit}"


def progress(items: Iterable[T], what: str, unit: str = "frames") -> Iterator[T]:
    """Yields the items and shows how many are done."""
    total = len(items) if isinstance(items, Sized) else None
    with Progress(what, total, unit) as bar:
        for item in items:
            yield item
            bar.update()


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Prints a line every ten seconds while the block runs, for work that nothing counts."""
    done, started = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(LINE_SECONDS):
            print(f"{what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
