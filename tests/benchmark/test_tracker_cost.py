"""benchmarks/tracker_cost.py: its table, of few boxes."""

from __future__ import annotations

import re

import pytest
import tracker_cost


def test_each_way_has_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tracker_cost", "--boxes", "12", "--side", "200", "--moments", "3"]
    monkeypatch.setattr("sys.argv", [*words, "--tracker", "greedy"])
    tracker_cost.main()
    table = capsys.readouterr().out.partition("update of 12 boxes\n")[2].splitlines()
    header, _, *rows = (re.split(r"  +", line.strip()) for line in table if line)
    assert header == ["tracker", "options", "p50_ms", "p90_ms", "tracks"]
    assert len(rows) == 4
    # The same objects all the time: no track ends, none is new.
    assert all(row[0] == "greedy" and float(row[2]) > 0 and row[4] == "12" for row in rows)
