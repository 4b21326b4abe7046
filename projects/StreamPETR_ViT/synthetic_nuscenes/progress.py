"""Progress of a generation: a bar on a terminal, a line every ten seconds in a log file."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

LINE_SECONDS = 10.0


class Progress:
    """Counts scenes that are done; a context manager.

    Args:
        total: how many there are.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._started = self._said = time.monotonic()
        # A bar is one line that is written over and over: in a file it would be hundreds.
        shows_bar = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc="synthetic scenes", unit="scene") if shows_bar else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self) -> None:
        """One more scene is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            seconds = self._said - self._started
            line = f"synthetic scenes: {self.done} of {self.total}, {seconds:.0f} s"
            print(line, file=sys.stderr, flush=True)
