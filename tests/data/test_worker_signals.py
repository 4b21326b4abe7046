"""A loading process outlives the signals of a terminal or a cluster, and ends with its parent's."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from streampetr_vit.data.build import _leave_signals_to_parent


def work(ready) -> None:
    _leave_signals_to_parent()
    ready.set()
    time.sleep(60)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system cannot tell senders")
def test_signals_of_others_are_ignored_and_those_of_the_parent_end_it() -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=work, args=(ready,), daemon=True)
    process.start()
    assert ready.wait(30)
    for number in (signal.SIGINT, signal.SIGTERM):
        program = f"import os; os.kill({process.pid}, {int(number)})"
        subprocess.run([sys.executable, "-c", program], check=True)
        time.sleep(0.2)
        assert process.is_alive()
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.2)
    assert process.is_alive()
    process.terminate()
    process.join(5)
    assert process.exitcode == 0
