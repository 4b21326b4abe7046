"""What --overwrite removes, and what is left of an earlier start that someone has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from drive_folder import write_drive
from played_drive import FakePredictor, Killed, files_in, play_of, played

from streampetr_vit.errors import InputError, MissingFileError, UserError
from streampetr_vit.inference.playing.shares import choose_scenes
from streampetr_vit.inference.sources import FolderSource


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    return FolderSource(write_drive(tmp_path_factory.mktemp("drives") / "d", 4))


@pytest.fixture
def killed(source: FolderSource, tmp_path: Path) -> Path:
    """The results of a start that was killed after three frames."""
    with pytest.raises(Killed):
        played(source, tmp_path, FakePredictor(dies_at=3))
    return tmp_path


def test_a_folder_of_the_user_is_not_removed(source: FolderSource, tmp_path: Path) -> None:
    mine = tmp_path / "drawn" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="has drawn, and nothing says that this tool has"):
            played(source, tmp_path, overwrite=overwrite)
    played(source, tmp_path, draw=False)  # into the same folder, without that sink
    with pytest.raises(InputError, match="has drawn, and nothing says"):
        played(source, tmp_path, overwrite=True)
    assert mine.read_text() == "mine"


def test_sinks_of_an_earlier_start_are_removed_too(source: FolderSource, tmp_path: Path) -> None:
    played(source, tmp_path)
    played(source, tmp_path, overwrite=True, draw=False)
    assert not (tmp_path / "drawn").exists() and (tmp_path / "objects.jsonl").exists()


@pytest.mark.parametrize("files", [["..", "../d", "/", 3, ""], "objects.jsonl", {"a": 1}, None])
def test_a_strange_list_of_files_removes_nothing(
    source: FolderSource, tmp_path: Path, files: object
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "d").mkdir()
    (out / "mine.txt").write_text("mine")
    (out / "predict.json").write_text(json.dumps({"files": files}))
    played(source, out, overwrite=True)
    assert (tmp_path / "d").is_dir() and (out / "mine.txt").exists()


def test_a_settings_file_that_is_no_json_is_removed(source: FolderSource, tmp_path: Path) -> None:
    (tmp_path / "predict.json").write_text("{")
    with pytest.raises(InputError, match="predict.json is none that this tool has written"):
        played(source, tmp_path)
    assert played(source, tmp_path, overwrite=True).frames == 4


def test_a_kill_while_things_are_removed_leaves_nothing_that_looks_complete(
    source: FolderSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(source, tmp_path)

    def dies(path: object) -> None:
        raise Killed

    monkeypatch.setattr(shutil, "rmtree", dies)
    with pytest.raises(Killed):
        played(source, tmp_path, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(InputError, match="none that this tool has written"):
        played(source, tmp_path)
    predictor = FakePredictor()
    played(source, tmp_path, predictor, overwrite=True)
    assert predictor.calls == 4


def test_progress_without_its_settings_is_not_gone_on_with(
    source: FolderSource, killed: Path
) -> None:
    (killed / "predict.json").unlink()
    shutil.rmtree(killed / "drawn", ignore_errors=True)
    with pytest.raises(InputError, match="has parts, and nothing says"):
        played(source, killed, settings={"weights": "others"})


@pytest.mark.parametrize("text", ["[]", "{}", '"x"', '{"frames": "3"}'])
def test_progress_that_is_none(source: FolderSource, killed: Path, text: str) -> None:
    (file,) = (killed / "parts").glob("*.progress.json")
    file.write_text(text)
    with pytest.raises(InputError, match="the progress of an earlier start is .*--overwrite"):
        played(source, killed)


def test_progress_of_other_types(source: FolderSource, killed: Path) -> None:
    (file,) = (killed / "parts").glob("*.progress.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "frames": "3"}))
    with pytest.raises(InputError, match="the progress of an earlier start is"):
        played(source, killed)


def test_a_state_that_is_gone(source: FolderSource, killed: Path) -> None:
    class Real(FakePredictor):
        def load_state(self, path: Path) -> None:
            if not path.is_file():
                raise MissingFileError(f"there is no state of a predictor at {path}")

    (file,) = (killed / "parts").glob("*.safetensors")
    file.unlink()
    with pytest.raises(InputError, match="scene 'd' cannot go on: there is no .*--overwrite"):
        played(source, killed, Real())


@pytest.mark.parametrize("line", ["{}", "[1]", "no JSON", '{"boxes": "x"}'])
def test_a_changed_line_of_the_replay(source: FolderSource, killed: Path, line: str) -> None:
    (file,) = (killed / "parts").glob("*.replay.jsonl")
    file.write_text(f"{line}\n" * 3)
    with pytest.raises(InputError, match="replay.jsonl has a line that this tool has not written"):
        played(source, killed)


def test_parts_that_were_removed_while_a_drive_is_played(
    source: FolderSource, tmp_path: Path
) -> None:
    play = play_of(source, tmp_path, FakePredictor(), draw=False)
    played(source, tmp_path / "whole", draw=False)
    with pytest.raises(Killed):
        played(source, tmp_path, FakePredictor(dies_at=3), draw=False)
    for file in (tmp_path / "parts").glob("*.objects.jsonl"):
        file.unlink()
    with pytest.raises(MissingFileError, match="objects.jsonl cannot be read: .*--overwrite"):
        play.sinks[0].finish(choose_scenes(source))
    with pytest.raises(UserError, match="has 0 lines, and 3 were written"):
        played(source, tmp_path, draw=False)
    played(source, tmp_path, overwrite=True, draw=False)
    whole = files_in(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")
    assert files_in(tmp_path) == whole
