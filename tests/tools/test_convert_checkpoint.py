"""The command-line tool that converts checkpoints."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import convert_checkpoint
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from torch import nn

from streampetr_vit.checkpoint.adapters import detector_to_streampetr
from streampetr_vit.checkpoint.files import read_checkpoint
from streampetr_vit.checkpoint.settings import settings_of
from streampetr_vit.engine import load_config

REPOSITORY = Path(__file__).resolve().parents[2]
QUICKSTART = str(REPOSITORY / "configs" / "quickstart.py")
VIT_L = str(REPOSITORY / "configs" / "streampetr_eva02_l_800x320_24ep.py")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return instantiate(load_config(QUICKSTART).model)


@pytest.fixture(scope="module")
def released(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of the quick start's shape in the reference's layout."""
    path = tmp_path_factory.mktemp("released") / "released.pth"
    state = detector_to_streampetr(model.state_dict(), settings_of(model))
    torch.save({"meta": {"epoch": 24}, "state_dict": OrderedDict(state)}, path)
    return path


def run(*arguments: object) -> None:
    convert_checkpoint.main([str(argument) for argument in arguments])


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert capsys.readouterr().out == ""
    assert isinstance(stop.value.code, str) and "error: " in stop.value.code
    return stop.value.code


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_there_and_back(
    released: Path, model: nn.Module, tmp_path: Path, ending: str, capsys
) -> None:
    ours, back = tmp_path / f"ours.{ending}", tmp_path / "back.pth"
    run(released, ours, "--config-file", QUICKSTART)
    text = capsys.readouterr().out
    assert "a StreamPETR detector" in text and f"wrote {ours} (" in text
    lines = [line.split() for line in text.splitlines()]
    total = sum(value.numel() for value in model.state_dict().values())
    assert ["mapped", str(len(model.state_dict())), f"{total:,}"] in lines
    assert ["missing", "0"] in lines and "note:" not in text
    content = read_checkpoint(ours)
    assert all(torch.equal(content["model"][n], v) for n, v in model.state_dict().items())
    assert content["settings"]["rotary"]["blocks"] == [10, 6, 10]
    run("--to", "streampetr", ours, back)
    state, expected = (read_checkpoint(path)["state_dict"] for path in (back, released))
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_one_part_can_be_taken(released: Path, tmp_path: Path, capsys) -> None:
    run(released, tmp_path / "b.pth", "--only", "backbone", "--config-file", QUICKSTART)
    assert "not of the backbone" in capsys.readouterr().out
    content = read_checkpoint(tmp_path / "b.pth")
    assert all(name.startswith("backbone.net.") for name in content["model"])
    assert content["settings"] == {}


def test_a_detector_that_lacks_a_part_is_named(released: Path, tmp_path: Path, capsys) -> None:
    content = torch.load(released, weights_only=True)
    state = content["state_dict"]
    content["state_dict"] = {k: v for k, v in state.items() if not k.startswith("img_roi_head.")}
    torch.save(content, tmp_path / "part.pth")
    message = failure(
        capsys, tmp_path / "part.pth", tmp_path / "w.pth", "--config-file", QUICKSTART
    )
    assert "is another detector than the model" in message
    assert "Not in the file: image_head.class_tower (4)" in message
    assert "--only backbone" in message


def test_weights_for_another_size_need_a_word(released: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other.yaml"
    cfg = load_config(QUICKSTART)
    cfg.model.backbone.net.img_size, cfg.model.backbone.net.global_window_size = 320, 20
    LazyConfig.save(cfg, str(other))
    message = failure(capsys, released, tmp_path / "w.pth", "--config-file", other)
    assert "block 0 has windows of 10 tokens in the file, 20 in the model" in message
    assert "--allow-other-size" in message and not (tmp_path / "w.pth").exists()
    run(released, tmp_path / "w.pth", "--config-file", other, "--allow-other-size")
    assert "rotary" not in read_checkpoint(tmp_path / "w.pth")["settings"]


def test_bad_input_is_one_line(released: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "w.pth"
    message = failure(capsys, "no.pth", out)
    assert "'no.pth' does not exist" in message and "train.init_checkpoint" not in message
    assert message.rstrip().endswith("correct the path of the input")
    (tmp_path / "page.pth").write_text("<html>")
    assert "page.pth is not a checkpoint" in failure(capsys, tmp_path / "page.pth", out)
    assert "must end with .pth" in failure(capsys, released, tmp_path / "w.bin")
    assert "the output is the input" in failure(capsys, released, released)
    assert "reference's names already" in failure(capsys, "--to", "streampetr", released, out)
    assert "leave out --ema" in failure(capsys, "--ema", released, out)
    assert "is not an EVA-02 detection" in failure(capsys, "--from", "eva02-det", released, out)
    assert "does not exist" in failure(capsys, released, out, "--config-file", "configs/no.py")
    message = failure(capsys, released, out, "--config-file", VIT_L)
    assert "in the file" in message and "in the model" in message
    cfg = load_config(QUICKSTART)
    cfg.model.backbone.net.num_heads = 7
    LazyConfig.save(cfg, str(tmp_path / "wrong.yaml"))
    message = failure(capsys, released, out, "--config-file", tmp_path / "wrong.yaml")
    assert "model.backbone.net cannot be built: " in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.pth", "wrong.yaml"]


def test_damaged_rotary_tables_are_named_with_their_file(
    released: Path, tmp_path: Path, capsys
) -> None:
    content = torch.load(released, weights_only=True)
    content["state_dict"]["img_backbone.rope_win.freqs_sin"] += 2
    torch.save(content, tmp_path / "bad.pth")
    message = failure(capsys, tmp_path / "bad.pth", tmp_path / "w.pth")
    assert f"{tmp_path / 'bad.pth'}: rotary table img_backbone.rope_win.freqs_sin holds" in message
    assert "copy or download it again" in message


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_tensors_without_whole_data_are_one_line(tmp_path: Path, ending: str, capsys) -> None:
    for value in (torch.eye(3).to_sparse(), torch.ones(2, device="meta"), torch.ones(1).expand(9)):
        torch.save({"model": {"head.a": value}}, tmp_path / "in.pth")
        message = failure(capsys, tmp_path / "in.pth", tmp_path / f"out.{ending}")
        assert "'head.a'" in message
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def test_a_state_dict_alone_needs_a_configuration_on_the_way_back(
    model: nn.Module, tmp_path: Path, capsys
) -> None:
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    arguments = ("--to", "streampetr", tmp_path / "ours.pth", tmp_path / "theirs.pth")
    assert "name the model's configuration with --config-file" in failure(capsys, *arguments)
    run(*arguments, "--config-file", QUICKSTART)
    state = read_checkpoint(tmp_path / "theirs.pth")["state_dict"]
    expected = torch.tensor([-25.6, -25.6, -5.0, 25.6, 25.6, 3.0])
    assert torch.equal(state["pts_bbox_head.pc_range"], expected)
    assert state["img_backbone.rope_glb.freqs_cos"].shape == (100, 32)


def test_the_tool_runs_from_the_command_line() -> None:
    tool = str(REPOSITORY / "tools" / "convert_checkpoint.py")
    shown = subprocess.run([sys.executable, tool, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert "examples:" in shown.stdout and "--from {auto,ours,eva02-det" in shown.stdout
