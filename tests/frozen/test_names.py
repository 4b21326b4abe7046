"""State-dict keys and config fields change by decision only."""

from __future__ import annotations

import pytest
from names import HERE, LISTS


@pytest.mark.parametrize("name", sorted(LISTS))
def test_names_are_the_frozen_ones(name: str) -> None:
    frozen, now = set((HERE / name).read_text().splitlines()), set(LISTS[name]())
    gone, new = sorted(frozen - now), sorted(now - frozen)
    assert not gone and not new, (
        f"{name}: gone {gone}, new {new}. If that is meant: run `python tests/frozen/names.py`, "
        "say it in CHANGELOG.md, and see to it that old checkpoints and command lines still work, "
        "or fail with the new name (configuration/moved.py)"
    )
