"""Errors that a user can mend, and those that keep their traceback."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from streampetr_vit.checkpoint.loading import CheckpointError
from streampetr_vit.data.image_io import BadImageError
from streampetr_vit.data.nuscenes.tables import TableError
from streampetr_vit.engine import ConfigError, NonFiniteTrainingError
from streampetr_vit.errors import (
    InputError,
    MissingFileError,
    OutputError,
    UserError,
    one_line_errors,
)

BUILT_IN = {
    BadImageError: RuntimeError,
    CheckpointError: RuntimeError,
    ConfigError: ValueError,
    InputError: ValueError,
    MissingFileError: FileNotFoundError,
    NonFiniteTrainingError: FloatingPointError,
    OutputError: OSError,
    TableError: ValueError,
}


@pytest.mark.parametrize(("kind", "built_in"), BUILT_IN.items())
def test_user_errors_end_the_program_with_one_line(
    kind: type[UserError], built_in: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    @one_line_errors()
    def tool() -> None:
        raise kind("what is wrong; how to mend it")

    monkeypatch.setattr("sys.argv", ["tools/some_tool.py", "--option"])
    with pytest.raises(SystemExit) as stop:
        tool()
    assert stop.value.code == "some_tool.py: error: what is wrong; how to mend it"
    assert issubclass(kind, built_in)


def test_a_terminal_obeys_no_name_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tool.py"])
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise InputError("picture a\x1b[2Jb.jpg\nis broken")
    assert stop.value.code == "tool.py: error: picture a\\x1b[2Jb.jpg is broken"


def test_the_errors_of_logging_are_as_before_when_a_tool_has_ended() -> None:
    before = logging.Handler.handleError
    with one_line_errors():
        assert logging.Handler.handleError is not before
    assert logging.Handler.handleError is before


@pytest.mark.parametrize("built_in", sorted(set(BUILT_IN.values()), key=str))
def test_other_errors_pass(built_in: type[Exception]) -> None:
    with pytest.raises(built_in, match="a fault of the program"), one_line_errors():
        raise built_in("a fault of the program")


TOOL = """
import logging, sys, time
from streampetr_vit.errors import one_line_errors

@one_line_errors()
def main():
    {body}

main()
"""


def run_tool(body: str, reader: str = "cat") -> subprocess.CompletedProcess[str]:
    """A tool whose output goes through a pipe; its own status is the last line of stderr."""
    script = (
        f"{sys.executable} -c '{TOOL.format(body=body)}' | {reader}; echo ${{PIPESTATUS[0]}} >&2"
    )
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "body",
    [
        'print("x\\n" * 100_000)',
        'print("one", flush=True); time.sleep(0.5); print("two")',
        'print("one", flush=True); time.sleep(0.5); print("two"); sys.exit(3)',
        "logging.basicConfig(stream=sys.stdout, level=20)\n"
        '    for _ in range(50): logging.info("line"); time.sleep(0.02)',
    ],
    ids=["long", "at the end", "before an exit", "log"],
)
def test_a_reader_that_goes_away_is_no_error(body: str) -> None:
    assert run_tool(body, "head -n 1").stderr.split() == ["141"]


def test_output_that_is_read_to_its_end_has_the_usual_status() -> None:
    done = run_tool('print("x"); sys.exit(3)')
    assert (done.stdout, done.stderr) == ("x\n", "3\n")


def test_a_broken_pipe_of_something_else_keeps_its_traceback() -> None:
    assert "BrokenPipeError: of a socket" in run_tool('raise BrokenPipeError("of a socket")').stderr


def test_an_interrupt_is_one_line_and_status_130() -> None:
    *text, status = run_tool("raise KeyboardInterrupt").stderr.splitlines()
    assert text == ["-c: interrupted"] and status == "130"


class _Broken(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise InputError("picture x is broken; take another")


def test_an_error_in_a_loader_process_is_that_process_s_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["some_tool.py"])
    with pytest.raises(SystemExit) as stop, one_line_errors():
        next(iter(torch.utils.data.DataLoader(_Broken(), num_workers=1)))
    assert stop.value.code == "some_tool.py: error: picture x is broken; take another"
