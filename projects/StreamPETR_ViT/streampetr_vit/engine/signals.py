"""What SIGTERM and SIGINT do: clusters send the first before they kill, Ctrl-C sends the second.

While steps run, a signal is a request: training ends after the step, with a checkpoint. Elsewhere
it ends the program at once, and so does a second one. The exit status is what shells expect: 143 or
130, 128 plus the signal's number.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from detectron2.utils import comm

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A launcher passes on what the terminal has sent to all its processes already: that is one signal.
_SAME_SIGNAL_S = 1.0


class Interrupted(SystemExit):
    """A signal ended the work.

    Attributes:
        advice: what to say last; empty for nothing.
    """

    def __init__(self, number: int, advice: str = "") -> None:
        super().__init__(128 + number)
        self.advice = advice


class SignalWatch:
    """Receives SIGTERM and SIGINT inside its `with` block, if that is in the main thread.

    Attributes:
        received: the first signal that came; None so far.
        deferring: a first signal is noted and no more; otherwise it raises `Interrupted`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferring = False
        self._received_s = 0.0
        self._receiving = _received_by(self._handle)

    def __enter__(self) -> SignalWatch:
        self._receiving.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._receiving.__exit__(*error)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block in which a signal ends the program at once, an earlier one too."""
        before, self.deferring = self.deferring, False
        try:
            if self.received is not None:
                raise Interrupted(self.received)
            yield
        finally:
            self.deferring = before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        is_first = self.received is None
        if not is_first and now_s - self._received_s < _SAME_SIGNAL_S:
            return
        self.received, self._received_s = number, now_s
        if is_first and self.deferring:
            _say(f"{name_of(number)}: training ends after this step; a second one ends it at once")
            return
        _say(f"{name_of(number)}: ended at once")
        raise Interrupted(number)


@contextmanager
def passing_on_signals() -> Iterator[list[int]]:
    """Passes SIGTERM and SIGINT on to the processes that this one has started, and lives on.

    For a block that only waits for others: without it a SIGTERM to this process alone would leave
    them running.

    Yields:
        The signals that came so far.
    """
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in multiprocessing.active_children():
            if process.pid is not None:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(process.pid, number)

    with _received_by(pass_on):
        yield received


@contextmanager
def _received_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Gives a function the signals inside the block, if that is in the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS if is_main}
    # A background job of a shell ignores SIGINT, and must go on doing so.
    before = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            # None stands for a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if old is None else old)


def name_of(number: int) -> str:
    """Such as SIGTERM."""
    return signal.Signals(number).name


def _say(text: str) -> None:
    """Prints a line from a signal handler, where the log may be in use."""
    if comm.is_main_process():
        os.write(2, f"{os.path.basename(sys.argv[0])}: {text}\n".encode())
