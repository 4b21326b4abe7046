"""Settings that every test and every process started by a test shares."""

from __future__ import annotations

import os
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
