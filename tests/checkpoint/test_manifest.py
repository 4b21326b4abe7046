"""Checksums of checkpoints, and their order."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from streampetr_vit.checkpoint import manifest
from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.checkpoint.manifest import (
    damage,
    forget,
    go_on_from,
    in_order,
    note,
    read_manifest,
)


def add(folder: Path, name: str, content: bytes = b"") -> Path:
    path = folder / name
    path.write_bytes(content or name.encode())
    note(folder, name, hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in in_order(folder)]


def test_the_order_is_that_of_writing_whatever_numbers_and_clock_say(tmp_path: Path) -> None:
    for number, time_s in ((30, 300), (10, 100), (20, 200)):
        path = add(tmp_path, f"model_{number:07d}.pth")
        os.utime(path, (time_s, time_s))
    assert names(tmp_path) == ["model_0000030.pth", "model_0000010.pth", "model_0000020.pth"]
    add(tmp_path, "model_0000030.pth")  # written once more
    assert names(tmp_path) == ["model_0000010.pth", "model_0000020.pth", "model_0000030.pth"]


def test_files_that_are_not_listed_are_older_than_all_others(tmp_path: Path) -> None:
    add(tmp_path, "model_0000005.pth")
    for name in ("model_0000009.pth", "model_0000007.pth", "other.pth", "model_1.pth"):
        (tmp_path / name).write_bytes(b"x")
    expected = ["model_0000007.pth", "model_0000009.pth", "model_0000005.pth"]
    assert names(tmp_path) == expected


def test_files_that_are_gone_leave_the_list(tmp_path: Path) -> None:
    first = add(tmp_path, "model_0000001.pth")
    add(tmp_path, "model_0000002.pth")
    first.unlink()
    assert names(tmp_path) == ["model_0000002.pth"]
    add(tmp_path, "model_0000003.pth")
    assert list(read_manifest(tmp_path)) == ["model_0000002.pth", "model_0000003.pth"]


def test_what_was_written_after_the_one_that_is_gone_on_from_is_the_oldest(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        add(tmp_path, f"model_{number:07d}.pth")
    go_on_from(tmp_path, "model_0000002.pth")
    assert [int(name[6:13]) for name in names(tmp_path)] == [3, 4, 1, 2]
    go_on_from(tmp_path, "model_0000004.pth")  # back again
    assert [int(name[6:13]) for name in names(tmp_path)] == [1, 2, 3, 4]
    before = read_manifest(tmp_path)
    for name in ("model_0000004.pth", "model_0000009.pth"):  # the newest; one that is not listed
        go_on_from(tmp_path, name)
        assert list(read_manifest(tmp_path).items()) == list(before.items())


def test_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    path = add(tmp_path, "model_0000001.pth", b"0" * 3_000_000)
    assert damage(path) is None
    content = bytearray(path.read_bytes())
    content[2_999_999] = 0
    path.write_bytes(content)
    assert damage(path) == "its SHA-256 is not the one that checkpoints.sha256 lists"
    forget(tmp_path, path.name)
    assert damage(path) is None  # nothing is known of it
    path.unlink()
    assert damage(path) == "it does not exist"


def test_a_file_that_cannot_be_read_is_damaged(tmp_path: Path, monkeypatch) -> None:
    path = add(tmp_path, "model_0000001.pth")

    def broken_disk(_: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(manifest, "digest_of", broken_disk)
    assert damage(path) == "it cannot be read (Input/output error)"


def test_lines_that_are_no_checksums_are_passed_over_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = "a" * 64 + "  model_0000001.pth"
    bad = ["b" * 63 + "  x.pth", "c" * 64 + "  ../x.pth", "d" * 64 + " x.pth", "\x00\xff", ""]
    bad += ["e" * 64 + "  " + "x" * 300 + ".pth", "f" * 64 + "  config.yaml"]
    (tmp_path / "checkpoints.sha256").write_bytes("\n".join([*bad, good]).encode("latin1"))
    with caplog.at_level(logging.WARNING):
        assert read_manifest(tmp_path) == {"model_0000001.pth": "a" * 64}
    assert caplog.text.count("a line that is no checksum is passed over") == len(bad)


@pytest.mark.parametrize("moment", ["forget", "note"])
def test_a_kill_never_leaves_a_whole_file_that_counts_as_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    model = nn.Linear(2, 2)
    checkpointer = SafeCheckpointer(model, str(tmp_path))
    checkpointer.save("model_final")
    torch.nn.init.zeros_(model.weight)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(manifest, moment, kill)
    with pytest.raises(Killed):
        checkpointer.save("model_final")
    path = tmp_path / "model_final.pth"
    assert damage(path) is None
    is_new = not torch.load(path, weights_only=True)["model"]["weight"].any()
    assert is_new == (moment == "note")


def test_a_file_is_listed_before_it_is_there(tmp_path: Path, monkeypatch) -> None:
    """So that it can be resumed from if nothing else is written any more."""
    seen = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        if target.name == "model_0000001.pth":
            seen.append(list(read_manifest(tmp_path)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    SafeCheckpointer(nn.Linear(2, 2), str(tmp_path)).save("model_0000001")
    assert seen == [["model_0000001.pth"]]
    assert damage(tmp_path / "model_0000001.pth") is None


def test_a_failed_save_leaves_the_old_file_with_its_checksum(tmp_path: Path, monkeypatch) -> None:
    checkpointer = SafeCheckpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_final")
    before = read_manifest(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpointer.save("model_final")
    assert read_manifest(tmp_path) == before and len(before) == 1
