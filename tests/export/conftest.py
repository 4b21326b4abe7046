"""Exports that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from exported import Export, make_export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Export]:
    """Gives an export of one of `exported.KINDS`, which is made once."""
    return cache(lambda kind: make_export(kind, tmp_path_factory.mktemp(kind)))
