"""Programs that a test starts, watches and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
PATHS = (HERE, HERE.parents[1] / "projects" / "StreamPETR_ViT")


def start_python(arguments: Iterable[str], printed: Path) -> subprocess.Popen[str]:
    """Starts Python with arguments; what it prints goes to a file."""
    paths = [*map(str, PATHS), os.environ.get("PYTHONPATH", "")]
    with printed.open("w") as sink:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            stdout=sink,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # signals to its group do not reach the tests
        )


def end_all(processes: Iterable[subprocess.Popen[str]]) -> None:
    """Kills what still runs, and all that it has started."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(path: Path, text: str, seconds: float = 60.0) -> None:
    """Waits until a file has a text; fails after so many seconds."""
    limit = time.monotonic() + seconds
    while not (path.is_file() and text in path.read_text()):
        assert time.monotonic() < limit, path.read_text() if path.is_file() else f"no {path}"
        time.sleep(0.05)
