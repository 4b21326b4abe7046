"""Checkpoint files: what is read, what is refused without running it, and what is written."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streampetr_vit.checkpoint.files import (
    read_checkpoint,
    write_checkpoint,
    write_mmcv_checkpoint,
)
from streampetr_vit.errors import CheckpointError, InputError, OutputError

WEIGHTS = {"head.a": torch.arange(6.0).view(2, 3), "head.b": torch.tensor(2)}


class Payload:
    """A pickle of it makes the reader call `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def hostile_contents(mark: Path) -> dict[str, Any]:
    """Contents that leave a mark if anything of them is run."""
    command = f"touch {mark}"
    return {
        "command": {"state_dict": WEIGHTS, "meta": Payload(os.system, command)},
        "eval": {"state_dict": WEIGHTS, "meta": Payload(eval, f"open({str(mark)!r}, 'w')")},
        "open": {"state_dict": {**WEIGHTS, "w": Payload(io.open, str(mark), "w")}},
        "in_place_of_weights": Payload(os.system, command),
        # Hidden as an argument of something that is allowed.
        "nested": {
            "state_dict": WEIGHTS,
            "meta": Payload(dict, [("a", Payload(os.system, command))]),
        },
    }


@pytest.mark.parametrize("layout", ["zip", "legacy", "plain pickle"])
@pytest.mark.parametrize("kind", ["command", "eval", "open", "in_place_of_weights", "nested"])
@pytest.mark.parametrize("lazily", [False, True], ids=["read", "mapped"])
def test_a_hostile_file_is_refused_and_nothing_of_it_is_run(
    tmp_path: Path, layout: str, kind: str, lazily: bool
) -> None:
    mark, path = tmp_path / "mark", tmp_path / "hostile.pth"
    content = hostile_contents(mark)[kind]
    if layout == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(CheckpointError, match="hostile.pth"):
        read_checkpoint(path, lazily=lazily)
    assert not mark.exists()
    if layout == "zip":  # the same file does harm where it is trusted: the test can fail
        torch.load(path, weights_only=False)
        assert mark.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_of_a_newer_kind_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    (tmp_path / "new.pkl").write_bytes(pickle.dumps({"model": {"w": [1.0]}}, protocol=4))
    torch.save({"model": WEIGHTS, "names": {"a"}}, tmp_path / "new.pth", pickle_protocol=4)
    for name in ("new.pkl", "new.pth"):
        with pytest.raises(CheckpointError, match=rf"{name} is a pickle of an unsupported") as seen:
            read_checkpoint(tmp_path / name)
        message = str(seen.value)
        assert "weights_only" not in message and "\n" not in message
        assert "save its tensors alone" in message


def test_the_object_that_is_refused_is_named(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "meta": Payload(os.getcwd)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"asks for posix.getcwd.*nothing in it was run"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
            "a Git LFS pointer",
        ),
        ("\ufeff \n<!DOCTYPE html>\n<html>", r"a web page \(HTML\)"),
        ('<?xml version="1.0"?>\n<html xmlns="x">', r"a web page \(HTML\)"),
    ],
)
def test_what_a_download_left_in_place_of_a_checkpoint_is_named(
    tmp_path: Path, ending: str, text: str, what: str
) -> None:
    path = tmp_path / f"w.{ending}"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=rf"w.{ending} is not a checkpoint but {what}") as e:
        read_checkpoint(path)
    assert str(e.value).endswith("download the file itself")


def test_the_advice_about_a_missing_file_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'.*no.pth' does not exist .*; correct the path$"):
        read_checkpoint(tmp_path / "no.pth")
    with pytest.raises(CheckpointError, match="; look elsewhere$"):
        read_checkpoint(tmp_path / "no.pth", advice="look elsewhere")


def foreign_class(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str, *bases: type, **members: Any
) -> type:
    """A class of a package that is not installed; gone again when the file is read."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        path = ".".join(parts[:count])
        if path not in sys.modules:
            monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    made = type(name, bases, {"__module__": module, **members})
    monkeypatch.setattr(sys.modules[module], name, made, raising=False)
    return made


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_what_training_programs_store_beside_tensors_is_passed_over(
    tmp_path: Path, layout: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        state = {"__getstate__": lambda self: self, "__setstate__": dict.update}
        config_dict = foreign_class(patch, "mmcv.utils.config", "ConfigDict", dict, **state)
        config = foreign_class(patch, "mmcv.utils.config", "Config")()
        config.values = config_dict(model=config_dict(type="Petr3D"), sizes=np.array([320, 800]))
        content = {
            "meta": {
                "config": config,
                "best": np.float64(0.5),
                "iter": np.int64(3),
                "arguments": argparse.Namespace(lr=4e-4),
                "palette": np.zeros((2, 3), np.uint8),
                "nested": config_dict(a=config_dict(b=1)),
            },
            "state_dict": OrderedDict(WEIGHTS),
        }
        path = tmp_path / "released.pth"
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    assert "mmcv.utils.config" not in sys.modules
    state_dict = read_checkpoint(path, lazily=True)["state_dict"]
    assert list(state_dict) == list(WEIGHTS)
    assert all(torch.equal(state_dict[name], value) for name, value in WEIGHTS.items())
    # The list is for this module's reading alone.
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)


def foreign_files(folder: Path) -> dict[str, str]:
    """Files that are no checkpoints: name -> what is said of each."""
    torch.save({"w": torch.zeros(100)}, folder / "whole.pth")
    whole = (folder / "whole.pth").read_bytes()
    (folder / "half.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "page.pth").write_text("<html>not found</html>")
    (folder / "w.safetensors").write_text("no")
    torch.save([torch.zeros(2)], folder / "list.pth")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(folder / "program.pth"))
    with zipfile.ZipFile(folder / "archive.pth", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    return {
        "half.pth": r"half.pth \(\d+ bytes\) cannot be read: it is damaged, incomplete",
        "empty.pth": r"empty.pth \(0 bytes\) cannot be read",
        "page.pth": "page.pth is not a checkpoint",
        "w.safetensors": "w.safetensors .*cannot be read",
        "list.pth": "list.pth holds a list",
        "program.pth": "program.pth",
        "archive.pth": "archive.pth",
    }


@pytest.mark.filterwarnings("ignore:.*TorchScript")
@pytest.mark.parametrize("lazily", [False, True])
def test_files_of_another_kind_are_named(tmp_path: Path, lazily: bool) -> None:
    for name, message in foreign_files(tmp_path).items():
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / name, lazily=lazily)


def test_a_compressed_file_is_not_taken_for_its_bytes(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))
    content = read_checkpoint(tmp_path / "small.pth", lazily=True)
    assert all(torch.equal(content[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_written_files_are_read_again_with_their_settings(tmp_path: Path, ending: str) -> None:
    settings = {"point_cloud_range": [-51.2, 51.2], "rotary": {"blocks": [16, 20]}}
    path = tmp_path / "new folder" / f"w.{ending}"
    write_checkpoint(path, WEIGHTS, settings)
    content = read_checkpoint(path)
    assert content["settings"] == settings
    assert all(torch.equal(content["model"][name], value) for name, value in WEIGHTS.items())
    if ending == "pth":
        loaded = torch.load(path, weights_only=True)
        assert loaded["__author__"] == "streampetr_vit" and set(loaded["model"]) == set(WEIGHTS)


def test_a_file_can_be_replaced_by_what_is_read_from_it(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": {"a": torch.arange(5000.0), "b": torch.ones(5000)}}, path)
    content = read_checkpoint(path, lazily=True)
    write_checkpoint(path, {"a": content["model"]["a"]}, {})
    assert torch.equal(read_checkpoint(path)["model"]["a"], torch.arange(5000.0))
    assert path.stat().st_size < 30_000  # not the whole file that the tensor is a view of


def test_outputs_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"w.txt' must end with .pth, .pt or .safetensors"):
        write_checkpoint(tmp_path / "w.txt", WEIGHTS, {})
    with pytest.raises(InputError, match="the reference reads .pth files only"):
        write_mmcv_checkpoint(tmp_path / "w.safetensors", WEIGHTS)
    (tmp_path / "file").write_text("")
    for ending in ("pth", "safetensors"):
        with pytest.raises(OutputError, match="cannot write"):
            write_checkpoint(tmp_path / "file" / f"w.{ending}", WEIGHTS, {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file"]
