"""Errors that a user can mend, and those that keep their traceback."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("built_in", sorted(set(BUILT_IN.values()), key=str))
def test_other_errors_pass(built_in: type[Exception]) -> None:
    with pytest.raises(built_in, match="a fault of the program"), one_line_errors():
        raise built_in("a fault of the program")
