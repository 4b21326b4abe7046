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
from collections.abc import Iterator
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
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalWatch:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                # A background job of a shell ignores SIGINT, and must go on doing so.
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            # None stands for a handler that was not set from Python.
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before = {}

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
def passed_on() -> Iterator[list[int]]:
    """Passes SIGTERM and SIGINT on to the processes that this one has started, and lives on.

    For a block that only waits for others: without it a SIGTERM to this process alone would leave
    them running. It yields a list of the signals that came.
    """
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in multiprocessing.active_children():
            if process.pid is not None:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(process.pid, number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    is_main = threading.current_thread() is threading.main_thread()
    own = {n: b for n, b in before.items() if is_main and b is not signal.SIG_IGN}
    for number in own:
        signal.signal(number, pass_on)
    try:
        yield received
    finally:
        for number, handler in own.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def name_of(number: int) -> str:
    """Such as SIGTERM."""
    return signal.Signals(number).name


def _say(text: str) -> None:
    """Prints a line from a signal handler, where the log may be in use."""
    if comm.is_main_process():
        os.write(2, f"{os.path.basename(sys.argv[0])}: {text}\n".encode())
