"""The folder of golden files is there, and no file in it is unknown."""

from __future__ import annotations

import golden


def test_there_are_golden_files() -> None:
    assert golden.all_files(), f"no *.pt in {golden.golden_dir()}"


def test_every_file_has_exactly_one_kind() -> None:
    unknown = [path.name for path in golden.all_files() if golden.kind_of(path) is None]
    assert not unknown, f"no parity test knows these files: {unknown}"


def test_the_committed_subset_is_compact_and_has_every_covered_kind() -> None:
    files = sorted(golden.COMMITTED_SUBSET.glob("*.pt"))
    assert {golden.kind_of(path) for path in files} == set(golden.COVERED) - set(
        golden.NOT_IN_SUBSET
    )
    assert set(golden.NOT_IN_SUBSET.values()) <= {golden.kind_of(path) for path in files}
    assert sum(path.stat().st_size for path in files) <= 4 * 2**20
