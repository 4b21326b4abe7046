"""Settings that every test and every process started by a test shares."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch and matplotlib are imported: small problems are slower on many threads, and there
# is no screen. A value set outside wins.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def _nothing_is_logged_yet() -> None:
    """What is logged once in a run is logged once in a test."""
    from streampetr_vit.logs import forget_logged

    forget_logged()


@pytest.fixture(scope="session")
def tiny_nuscenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a small synthetic data set, read only: v1.0-mini with mini_train and mini_val.

    One scene of six keyframes each, pictures of 400x225.
    """
    from synthetic_nuscenes import PRESETS, generate

    return generate(PRESETS["tiny"], tmp_path_factory.mktemp("tiny_nuscenes"), workers=1)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files of this process can have 64 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
