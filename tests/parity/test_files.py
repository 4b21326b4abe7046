"""The folder of golden files is there, and no file in it is unknown."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest


def test_there_are_golden_files() -> None:
    assert golden.all_files(), f"no *.pt or *.json in {golden.golden_dir()}"


def test_every_file_has_exactly_one_kind() -> None:
    unknown = [path.name for path in golden.all_files() if golden.kind_of(path) is None]
    assert not unknown, f"no parity test knows these files: {unknown}"


def test_a_file_of_no_kind_or_of_two_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("c_rope_1.pt", "raydn_7.pt", "tracker_7.json", "novelty_1.pt", "novelty_2.json"):
        (tmp_path / name).touch()
    (tmp_path / "README_1.md").touch()  # no tensors
    monkeypatch.setenv("STREAMPETR_GOLDEN_DIR", str(tmp_path))
    kinds = {path.name: golden.kind_of(path) for path in golden.all_files()}
    assert kinds == {
        "c_rope_1.pt": "rope",
        "novelty_1.pt": None,
        "novelty_2.json": None,
        "raydn_7.pt": "raydn",
        "tracker_7.json": "tracker",
    }
    monkeypatch.setitem(golden.COVERED, "again", r"c_rope.*")
    assert golden.kind_of(tmp_path / "c_rope_1.pt") is None


def test_the_committed_subset_is_compact_and_has_every_covered_kind() -> None:
    files = golden.files_in(golden.COMMITTED_SUBSET)
    assert {golden.kind_of(path) for path in files} == set(golden.COVERED) - set(
        golden.NOT_IN_SUBSET
    )
    assert set(golden.NOT_IN_SUBSET.values()) <= {golden.kind_of(path) for path in files}
    assert sum(path.stat().st_size for path in files) <= 4 * 2**20
