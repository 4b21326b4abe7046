"""Processes that load samples: how they begin, and when they end.

The rule of the whole project: no process is forked from one that may have threads. A lock that a
thread of CUDA, NCCL, OpenCV or torch holds at that moment stays locked in the copy, which then
hangs. So ranks, and the processes that draw the synthetic set, are started anew ("spawn"). Loading
processes, of which each evaluation needs new ones, are forked from a server that has imported what
they need and done nothing else. Measured beside a busy core: 6 s for the server, once, and 0.05 s
for each process, where "spawn" takes 6 s for each. Of the records only the place of their cache
travels.

One exception: a new process imports the main program again. Where that would do its work again (a
script without `if __name__ == "__main__":`), or is not possible (a program from stdin), loading
processes are forked, as torch does by default, and the log says so.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import re
import signal
import sys
import threading
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

import cv2
import numpy as np

from streampetr_vit.logs import log_once

_LOG = logging.getLogger(__name__)
_GUARD = re.compile(r"""__name__\s*==\s*['"]__main__['"]""")


def worker_context() -> BaseContext:
    """What a DataLoader starts its workers with, see above; begins the server's imports."""
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    if not _can_import_main():
        log_once(
            _LOG,
            logging.WARNING,
            "loading processes are forked from this one, which can hang: the main program has no "
            'line `if __name__ == "__main__":`, below which a new process would do nothing. Add it',
        )
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["streampetr_vit.data.build"])
    # Ended by a cluster's SIGTERM to all processes, it would end its workers. It inherits this, and
    # so do all processes that this program lets it start.
    is_main = threading.current_thread() is threading.main_thread()  # only that one may set it
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN) if is_main else None
    try:
        forkserver.ensure_running()
    finally:
        if is_main:  # None stands for a handler that was not set from Python
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
    return context


def _can_import_main() -> bool:
    """Whether a new process can import the main program without doing its work again."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None:
        return True  # a notebook or `python -c`, which are not imported; or `python -m`
    try:
        with open(file, encoding="utf-8", errors="replace") as text:
            return _GUARD.search(text.read()) is not None
    except OSError:  # "<stdin>"
        return False


def start_worker(first_seed: int, worker: int) -> None:
    """Seeds the global generators of a worker process, and ties its life to the loader's.

    Args:
        first_seed: of worker 0.
        worker: index of this worker.
    """
    cv2.setNumThreads(0)  # OpenCV works in the worker's own thread: the workers fill the cores
    random.seed(first_seed + worker)
    np.random.seed(first_seed + worker)
    # Terminals and clusters signal all processes of a job. The training process decides when to
    # end, and needs its workers until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if hasattr(signal, "pthread_sigmask"):  # not on Windows; threads made later inherit it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # torch watches the parent, which here is the fork server, and that one ends after the workers.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(loader: BaseProcess) -> None:
    """Ends this worker when the process that uses the loader is gone, or sends it SIGTERM."""
    while loader.is_alive():
        if not hasattr(signal, "sigtimedwait"):  # macOS
            loader.join()
            continue
        received = signal.sigtimedwait({signal.SIGTERM}, 1.0)
        if received is not None and received.si_pid == loader.pid:
            break
    os._exit(0)
