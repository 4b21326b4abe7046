"""Progress: a bar on a terminal, few lines in a file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import pytest

import streampetr_vit.progress
import synthetic_nuscenes.progress

Make = Callable[[int], object]
MAKERS = {
    "package": lambda total: streampetr_vit.progress.Progress("pictures", total, "frames"),
    "synthetic": synthetic_nuscenes.progress.Progress,
}


class _Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    for module in (streampetr_vit.progress, synthetic_nuscenes.progress):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_one_line_in_ten_seconds(
    make: Make, clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with make(850) as bar:
        for _ in range(850):
            clock.now += 0.05  # 42.5 s in all
            bar.update()
    written = capsys.readouterr().err
    assert "\r" not in written
    lines = written.splitlines()
    assert len(lines) == 4
    assert "of 850" in lines[0] and lines[0].endswith(" 10 s")


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_bar_on_a_terminal(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with make(3) as bar:
        for _ in range(3):
            bar.update()
    assert "100%" in capsys.readouterr().err


def test_items_are_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(streampetr_vit.progress.progress(iter("abc"), "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_bytes_are_shown_as_megabytes(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with streampetr_vit.progress.Progress("tables", 40_000_000, "B") as bar:
        clock.now = 11.0
        bar.update(16_000_000)
    assert capsys.readouterr().err == "tables: 16 MB of 40 MB, 11 s\n"


def test_work_that_nothing_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(streampetr_vit.progress, "LINE_SECONDS", 0.05)
    before = threading.active_count()
    with pytest.raises(KeyError), streampetr_vit.progress.waiting("exporting"):
        time.sleep(0.4)
        raise KeyError
    assert threading.active_count() == before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and set(lines) == {"exporting: 0 s"}
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
