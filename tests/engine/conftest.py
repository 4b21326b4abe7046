"""Keeps detectron2's logging set-up of one test out of the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

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
