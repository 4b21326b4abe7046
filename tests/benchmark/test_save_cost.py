"""benchmarks/save_cost.py: the tables of a tiny model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import save_cost
from crash_test import SMALL


def test_all_ways_to_save_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--repeats", "2", "--steps", "1", "--folder", str(tmp_path)]
    save_cost.main([*words, "train.device=cpu", *SMALL])
    out = capsys.readouterr().out
    header, _, row = out.partition("saves\n")[2].splitlines()[:3]
    names, values = re.split(r"  +", header), re.split(r"  +", row)
    found = dict(zip(names, values, strict=True))
    times = ("blocking_s", "first_copy_s", "copy_s", "write_s", "check_s")
    assert all(float(found[name]) > 0 for name in times)
    # Weights and two moments of 0.9 M parameters.
    assert 0.008 < float(found["checkpoint_gb"]) < 0.02
    for way in ("none", "blocking", "in the background"):
        assert re.search(rf"^{way}  +[\d.e+]+", out, re.MULTILINE)
    assert not list(tmp_path.iterdir())
