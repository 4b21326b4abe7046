"""The handmade data set, written once for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import handmade_tables
import pytest

from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.records import FrameRecords


@pytest.fixture(scope="session")
def handmade_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root of the handmade set, with pictures. Do not change it."""
    root = tmp_path_factory.mktemp("handmade")
    tables = handmade_tables.make_tables()
    handmade_tables.write_tables(tables, root)
    handmade_tables.write_pictures(tables, root)
    return root


@pytest.fixture(scope="session")
def handmade_records(handmade_root: Path) -> FrameRecords:
    """All records of the handmade set."""
    return load_records(handmade_root, handmade_tables.VERSION)
