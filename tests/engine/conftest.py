"""Loggers as they were, and processes that start quickly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pytest
import torch.multiprocessing as mp

from streampetr_vit.data.workers import worker_context

LOGGERS = ("detectron2", "fvcore", "streampetr_vit")


@pytest.fixture(autouse=True)
def restored_loggers() -> Iterator[None]:
    before = {
        name: (logging.getLogger(name).handlers[:], logging.getLogger(name).propagate)
        for name in LOGGERS
    }
    yield
    for name, (handlers, propagate) in before.items():
        logging.getLogger(name).handlers[:] = handlers
        logging.getLogger(name).propagate = propagate


@pytest.fixture
def quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`launch` forks its processes from the loaders' server, which has imported much."""
    worker_context()
    start = partial(mp.start_processes, start_method="forkserver")
    monkeypatch.setattr(mp, "start_processes", start)
