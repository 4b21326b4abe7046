"""benchmarks/crash_test.py: it kills, compares, and says what differs."""

from __future__ import annotations

import re
from pathlib import Path

import crash_test
import pytest
import torch
from torch import Tensor


def content() -> dict[str, object]:
    state = {0: {"step": torch.tensor(3.0)}}
    hooks = {"ScheduleHook": {"elapsed_s": 1.0}}
    return {
        "model": {"weight": torch.ones(2)},
        "trainer": {"optimizer": {"state": state, "groups": [{"lr": 0.1}]}, "hooks": hooks},
        "memories": None,
    }


def test_equal_checkpoints_differ_in_nothing() -> None:
    other = content()
    other["trainer"]["hooks"]["ScheduleHook"]["elapsed_s"] = 2.0  # type: ignore[index]
    assert crash_test.first_difference(content(), other) is None


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("weight", torch.tensor([1.0, 1.0 + 2**-23]), "model.weight"),
        ("weight", torch.ones(2, dtype=torch.float64), "model.weight"),
        ("bias", torch.ones(2), "model: "),
    ],
)
def test_the_first_tensor_that_differs_is_named(key: str, value: Tensor, name: str) -> None:
    other = content()
    other["model"][key] = value  # type: ignore[index]
    assert crash_test.first_difference(content(), other).startswith(name)


def test_plain_values_are_compared_too() -> None:
    other = content()
    other["trainer"]["optimizer"]["groups"][0]["lr"] = 0.2  # type: ignore[index]
    found = crash_test.first_difference(content(), other)
    assert found == "trainer.optimizer.groups[0].lr: 0.1 and 0.2"
    assert crash_test.first_difference(content(), {**content(), "memories": {}})


def test_two_kills(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        crash_test.main(["--kills", "2"])
    *_, summary = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0 and summary.endswith("; equal")
    # The second may come too late.
    assert re.match(r"[12] kills \(.*\); \d+ steps repeated; 0 temporary files left", summary)


def test_an_attempt_that_fails_ends_the_test(tmp_path: Path) -> None:
    words = ["--config-file", str(tmp_path / "none.py")]
    with pytest.raises(SystemExit, match="an attempt failed(.|\n)*none.py"):
        crash_test.Run(tmp_path / "run", words, processes=1).finish()
