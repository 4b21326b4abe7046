"""Watching the other processes of a job, so that none waits for one that is gone.

Each process gives a sign of life in the job's store every second, and looks there whether another
one has failed. Rank 0 also looks whether all others still give theirs, and each other rank whether
the one before it does. A process that learns of a failure gets some seconds to end by itself. Then
it is ended: its main thread may wait in C++, where no exception reaches it. No clock is read: a
process that was suspended finds nobody late.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch.distributed as dist

from streampetr_vit.engine.failures import LostProcessError
from streampetr_vit.engine.place import Place
from streampetr_vit.errors import UserError, one_line

_FAILED, _LOST, _LEFT = "failed", "lost", b"left"
# Looks without a sign of life after which a rank is gone, if another one has lost a connection.
_QUICK = 5
# Further looks that the ranks beside 0 wait, which names all that are gone, and they only one.
_AFTER_RANK_0 = 2


def tell(store: dist.Store, reason: str) -> None:
    """Tells all processes why the job fails. The first reason is kept."""
    store.compare_set(_FAILED, "", reason)


class Watch:
    """Watches the other processes while its `with` block runs.

    An error of the block is told to the others, and a `LostProcessError` gets the reason that
    another process or its launcher told. At the end, rank 0 waits until the others look no more:
    the store may end with it.

    Args:
        store: that all processes share, for this start of them alone.
        place: of this process.
        names: of all ranks, for messages.
        look_s: seconds from one look to the next.
        silent_s: seconds without a sign of life after which a process, or the store, is gone.
        grace_s: seconds to end in order after another process has failed.
    """

    def __init__(
        self,
        store: dist.Store,
        place: Place,
        names: Sequence[str],
        *,
        look_s: float = 1.0,
        silent_s: float = 60.0,
        grace_s: float = 10.0,
    ) -> None:
        # A store of its own: the calls of one store wait for each other.
        self._store = store.clone()
        self._place, self._names = place, list(names)
        others = [rank for rank in range(len(names)) if rank != place.rank]
        # Rank 0 may go while the store stays: torchrun's agent has it, or the launching process.
        self._watched = others if place.rank == 0 else [place.rank - 1]
        self._look_s, self._grace_s = look_s, grace_s
        self._patience = max(1, round(silent_s / look_s))  # in looks
        self._looks = 0
        self._reason: str | None = None
        self._told, self._done = threading.Event(), threading.Event()
        self._end: Callable[[str], None] = lambda reason: None
        self._threads = [
            threading.Thread(target=work, name="watch", daemon=True)
            for work in (self._look, self._judge)
        ]
        self._store.set(_beat(place.rank), "0")

    def start(self, end: Callable[[str], None]) -> None:
        """Begins to watch.

        Args:
            end: ends this process and says why; called if it does not end by itself.
        """
        self._end = end
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, LostProcessError):
            if self._reason is None:
                with suppress(RuntimeError):
                    self._store.set(_LOST, "")  # rank 0 then looks sharper
                self._told.wait(2 * _QUICK * self._look_s)
        elif error is not None and self._reason is None:
            self._tell(error)
        self._leave(self._patience if error is None else 3)
        if isinstance(error, LostProcessError) and self._reason is not None:
            raise LostProcessError(self._reason) from error

    def _tell(self, error: BaseException) -> None:
        """Tells the others of an error. One that a signal has caused is no failure."""
        if isinstance(error, SystemExit):
            if not isinstance(error.code, str):
                return
            text = error.code.partition("error: ")[2] or error.code  # what the tool prints
        elif isinstance(error, UserError):
            text = one_line(error)
        else:
            text = f"{type(error).__name__}: {one_line(error)} (it has printed the traceback)"
        with suppress(RuntimeError):
            tell(self._store, f"{self._names[self._place.rank]} failed: {text}")

    def _leave(self, looks: int) -> None:
        """Ends the watch; rank 0 waits for the others, for as long as so many looks take."""
        self._done.set()
        self._threads[0].join(self._look_s)
        if self._threads[0].is_alive():  # in a call that the store does not answer
            return
        with suppress(RuntimeError):
            if self._reason is None:  # otherwise it is set, or the store is gone
                self._store.set(_beat(self._place.rank), _LEFT)
            end = time.monotonic() + looks * self._look_s
            while self._place.rank == 0 and time.monotonic() < end and self._beats():
                time.sleep(0.05)

    def _look(self) -> None:
        """Gives signs of life, and looks for those of the others."""
        last: dict[int, bytes] = {}
        silent: dict[int, int] = {}
        while self._reason is None and not self._done.wait(self._look_s):
            try:
                self._store.set(_beat(self._place.rank), str(self._looks))
                beats = self._beats()
                silent = {r: silent.get(r, 0) + 1 for r in beats if beats[r] == last.get(r)}
                last = beats
                self._tell_of_silent(silent)
                if self._store.check([_FAILED]):
                    self._reason = self._store.get(_FAILED).decode()
                    # It will end now, in one way or the other.
                    self._store.set(_beat(self._place.rank), _LEFT)
            except RuntimeError:
                self._reason = self._without_store("has ended")
            self._looks += 1
        self._told.set()

    def _beats(self) -> dict[int, bytes]:
        """The last sign of life of each rank that this one watches and that has not left."""
        keys = [_beat(rank) for rank in self._watched]
        beats = self._store.multi_get(keys) if keys else []
        return {r: beat for r, beat in zip(self._watched, beats, strict=True) if beat != _LEFT}

    def _tell_of_silent(self, silent: dict[int, int]) -> None:
        limit = _QUICK if self._store.check([_LOST]) else self._patience
        later = 0 if self._place.rank == 0 else _AFTER_RANK_0
        gone = [self._names[rank] for rank, looks in silent.items() if looks >= limit + later]
        if gone:
            seconds = limit * self._look_s
            tell(self._store, f"{', '.join(gone)} gave no sign of life for {seconds:g} s")

    def _judge(self) -> None:
        """Ends the process after a failure, or if the store answers no more."""
        seen, waited = -1, 0
        while not self._told.is_set():
            if self._done.wait(self._look_s):
                return
            waited = waited + 1 if self._looks == seen else 0
            seen = self._looks
            if waited >= self._patience and self._reason is None:
                self._reason = self._without_store("does not answer")
                self._told.set()
        if not self._done.wait(self._grace_s):
            self._end(self._reason or "")

    def _without_store(self, what: str) -> str:
        point = self._place.meeting_point()
        return (
            f"the machine of rank 0 is lost, or the process there that keeps the job together: "
            f"{self._names[0]}; the store at {point} {what}"
        )


def _beat(rank: int) -> str:
    return f"beat/{rank}"
