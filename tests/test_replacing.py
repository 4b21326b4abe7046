"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from streampetr_vit.errors import OutputError
from streampetr_vit.files import replacing


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file.json"
    for before in ([], ["file.json"]):
        with pytest.raises(error), replacing(path) as temporary:
            temporary.write_text("half")
            raise error
        assert [entry.name for entry in tmp_path.iterdir()] == before
        path.write_text("old")
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free some space there"),
        (errno.EDQUOT, "free some space there"),
        (errno.EACCES, "check the folder and its rights"),
    ],
)
def test_what_cannot_be_written_comes_with_the_way_out(
    tmp_path: Path, number: int, fix: str
) -> None:
    message = f"cannot write .*file.json.*; {fix}"
    with pytest.raises(OutputError, match=message), replacing(tmp_path / "file.json"):
        raise OSError(number, os.strerror(number))


def test_the_new_file_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet there" / "file.json"
    for text in ("first", "second"):
        with replacing(os.fspath(path)) as temporary:
            assert temporary.parent == path.parent  # a rename is atomic inside one folder
            before = path.read_text() if path.exists() else None
            temporary.write_text(text)
            assert before == {"first": None, "second": "first"}[text]
        assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_permissions_are_the_usual_ones_whoever_writes(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    old_mask = os.umask(0o027)
    try:
        usual.touch()
        for name in ("text", "tensors"):
            with replacing(tmp_path / name) as temporary:
                if name == "tensors":  # safetensors lets the owner alone read
                    save_file({"a": torch.ones(1)}, temporary)
                else:
                    temporary.chmod(0o600)
    finally:
        os.umask(old_mask)
    for name in ("text", "tensors"):
        assert (tmp_path / name).stat().st_mode == usual.stat().st_mode


def test_writers_of_one_file_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    """Of two at once, threads of one process here, the last to finish wins, and is whole."""
    both_write = threading.Barrier(2)

    def write(letter: str) -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text(letter * 1000)
            both_write.wait(timeout=10)

    threads = [threading.Thread(target=write, args=letter) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set((tmp_path / "file").read_text()) in ({"a"}, {"b"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
