"""The folder of an export is whole or does not look so, and nothing else is written over."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from nuscenes_export import described
from onnx import helper

from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.export import output_folder
from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import BACKBONE, CONFIG, GRAPHS, HEAD, PARITY, POSITION
from streampetr_vit.export.output_folder import becoming, check_output

HERE = described()
OTHER = replace(HERE, recipe="another")


def write(folder: Path, description: Description, text: str = "") -> None:
    """Files that stand for an export."""
    folder.mkdir(exist_ok=True)
    for name in GRAPHS:
        model = helper.make_model(helper.make_graph([], name, [], []), doc_string=text)
        helper.set_model_props(model, description.to_metadata())
        onnx.save(model, folder / name)
    (folder / CONFIG).write_text(text)
    (folder / PARITY).write_text(text)


def refusal(folder: Path, overwrite: bool = False, description: Description = HERE) -> str:
    with pytest.raises(InputError) as error:
        check_output(folder, description, overwrite)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_and_an_empty_folder_are_free(tmp_path: Path) -> None:
    check_output(tmp_path, HERE, overwrite=False)
    check_output(tmp_path / "a" / "b", HERE, overwrite=False)
    assert names(tmp_path) == []


def test_other_files_are_never_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file is a file: give --out a new or an empty folder" in refusal(tmp_path / "file")
    for name in ("config.yaml", "model_final.pth", "a", "b"):  # a training's folder, say
        (tmp_path / name).touch()
    for overwrite in (False, True):
        message = refusal(tmp_path, overwrite)
        assert "holds other files (a, b, config.yaml and 2 more): give --out a new" in message


def test_an_earlier_export_is_replaced_only_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, HERE)
    assert "holds this export already: add --overwrite to write it once more" in refusal(tmp_path)
    check_output(tmp_path, HERE, overwrite=True)
    assert caplog.messages == []
    message = refusal(tmp_path, description=OTHER)
    what = "another export (recipe is 'streampetr_eva02_l_800x320_24ep' there, 'another' now)"
    assert f"holds {what}: choose another --out, or add --overwrite to replace it" in message
    check_output(tmp_path, OTHER, overwrite=True)
    assert caplog.messages == [f"{tmp_path}: replacing {what}"]
    with_ema = replace(HERE, weights="model_final.pth (moving average)")
    assert "another export (weights is 'model_final.pth' there, " in refusal(
        tmp_path, description=with_ema
    )


def test_graphs_of_another_program(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in GRAPHS:
        (tmp_path / name).write_bytes(b"no graph at all")
    what = "graphs that tools/export_onnx.py has not written, or not whole"
    assert f"holds {what}: choose another --out" in refusal(tmp_path)
    (tmp_path / POSITION).unlink()
    assert f"holds {what}: choose another --out" in refusal(tmp_path)
    check_output(tmp_path, HERE, overwrite=True)
    assert caplog.messages == [f"{tmp_path}: replacing {what}"]


def test_half_an_export_is_not_called_one(tmp_path: Path) -> None:
    write(tmp_path, HERE)
    (tmp_path / HEAD).unlink()
    assert "holds half of this export: choose another --out, or add --over" in refusal(tmp_path)
    check_output(tmp_path, HERE, overwrite=True)


def test_files_come_whole_and_the_head_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "export"
    order = []
    move = os.replace

    def noted(source: Path, target: Path) -> None:
        order.append(Path(target).name)
        move(source, target)

    monkeypatch.setattr(os, "replace", noted)
    with becoming(folder) as temporary:
        write(temporary, HERE)
        assert temporary.parent == folder and names(folder) == [temporary.name]
    assert names(folder) == sorted([*GRAPHS, CONFIG, PARITY])
    assert sorted(order) == names(folder) and order[-1] == HEAD


def test_a_failure_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), becoming(tmp_path / "new") as temporary:
        write(temporary, HERE)
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    write(tmp_path, HERE, "old")
    (tmp_path / "mine.txt").touch()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError), becoming(tmp_path) as temporary:
        write(temporary, HERE, "new")
        raise InputError("stop")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with becoming(tmp_path) as temporary:
        write(temporary, HERE, "new")
    assert names(tmp_path) == sorted(before)  # the file beside is there
    assert (tmp_path / CONFIG).read_text() == "new"


def test_a_move_that_fails_leaves_no_whole_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, HERE, "old")
    move = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(target).name == POSITION:
            raise OSError(28, "No space left on device")
        move(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OutputError, match="No space left on device; free some space"):  # noqa: SIM117
        with becoming(tmp_path) as temporary:
            write(temporary, OTHER, "new")
    assert HEAD not in names(tmp_path) and BACKBONE in names(tmp_path)
    assert "holds another export (recipe is" in refusal(tmp_path, description=OTHER)


def test_what_a_killed_program_left_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from streampetr_vit.export.output_folder import becoming\n"
        "with becoming(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'simplify_pts_head_memory.onnx').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(output_folder._HALF_WRITTEN)
    check_output(tmp_path, HERE, overwrite=False)  # the folder does not look like an export
    with becoming(tmp_path) as temporary:
        write(temporary, HERE)
    assert names(tmp_path) == sorted([*GRAPHS, CONFIG, PARITY])


def test_engines_of_earlier_graphs_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, HERE)
    (tmp_path / "simplify_pts_head_memory.engine").touch()
    with becoming(tmp_path) as temporary:
        write(temporary, HERE)
    assert "simplify_pts_head_memory.engine may be of earlier graphs: remove them" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write .*file/export"):  # noqa: SIM117
        with becoming(tmp_path / "file" / "export"):
            pass
