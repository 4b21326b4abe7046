"""How many CPU cores there are to work with."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """CPU cores that this process may run on; a quota of their time is not looked at."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
