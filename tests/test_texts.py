"""Texts of strangers: shown, made into file names, compared."""

from __future__ import annotations

import logging

import pytest

from streampetr_vit.errors import InputError, one_line_errors
from streampetr_vit.logs import forget_logged, log_once
from streampetr_vit.texts import file_name, name_list, nearest, printable, shown

HOSTILE = ["../../etc/x", "a\nb", "a\0b", "x" * 10_000, "<script>alert(1)</script>", "C:\\x", "~/x"]


def test_control_characters_are_escaped() -> None:
    assert printable("red \x1b[31m\x07 and \u202e\nnext") == "red \\x1b[31m\\x07 and \\u202e\nnext"
    assert shown("\x1b[2J") == r"'\x1b[2J'"
    assert len(shown("x" * 10_000)) < 100
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "<list>"
    assert shown(10**5000) == "<int>"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_file_name_stays_in_its_folder(text: str) -> None:
    name = file_name(text)
    assert "/" not in name and "\\" not in name and not name.startswith(".")
    assert name.isprintable() and len(name) <= 50


def test_usual_names_stay_as_they_are() -> None:
    for name in ("scene-0061", "Straße_1", "n015-2018+0800"):
        assert file_name(name) == name


def test_name_lists_are_cut() -> None:
    assert name_list(["a", "b"]) == "a, b"
    assert name_list(range(30), 2) == "0, 1 and 28 more"
    assert name_list(["\x1b[2J"]) == r"'\x1b[2J'"


def test_nearest_names() -> None:
    known = ["vehicle.bus.rigid", "vehicle.car", "animal"]
    assert nearest("vehicle.bus.rigd", known)[0] == "vehicle.bus.rigid"
    assert nearest("Vehicle.Car", known)[0] == "vehicle.car"
    assert nearest("vehicle.bus.bendy", known, likeness=0.85) == []


def test_an_error_cannot_write_to_the_terminal() -> None:
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise InputError("scene \x1b]0;owned\x07")
    assert "\x1b" not in str(stop.value) and "\\x1b]0;owned\\x07" in str(stop.value)


def test_once_for_each_run(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test_once")
    for _ in range(3):
        log_once(logger, logging.WARNING, "100 % of it")
    assert caplog.messages == ["100 % of it"]
    forget_logged()
    log_once(logger, logging.WARNING, "100 % of it")
    assert len(caplog.messages) == 2
