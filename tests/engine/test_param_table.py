"""--print-param-groups: what it shows, and that it neither trains nor reads data."""

from __future__ import annotations

import re
from pathlib import Path

import lazyconfig_train_net
import pytest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TOY = str(Path(__file__).with_name("toy_config.py"))
ROW = re.compile(r"^  (\S+) +(\S+) +lr (\S+) +wd (\S+)$", re.MULTILINE)


@pytest.fixture
def print_groups(monkeypatch, capsys, tmp_path: Path):
    """Runs the tool with --print-param-groups in an empty folder, and returns what it printed."""

    def run(*words: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["lazyconfig_train_net.py", "--print-param-groups", *words])
        lazyconfig_train_net.invoke_main()
        assert not list(tmp_path.iterdir())
        return capsys.readouterr().out

    return run


def test_every_parameter_of_the_layer_decay_recipe(print_groups) -> None:
    path = CONFIGS / "streampetr_eva02_l_800x320_24ep_layer_decay.py"
    text = print_groups("--config-file", str(path))
    assert text.startswith("52 groups, 640 tensors, 319497585 parameters; for 16 frames per step")
    rows = {name: rest for name, *rest in ROW.findall(text)}
    assert len(rows) == len(ROW.findall(text)) == 640
    assert rows["backbone.net.pos_embed"] == ["1x197x1024", "7.179e-06", "1e-07"]
    assert rows["backbone.net.blocks.23.attn.q_bias"] == ["1024", "9e-05", "0"]
    assert rows["head.reference_points"][1:] == ["0.0004", "1e-07"]


def test_overrides_act_and_auto_scale_is_named_only_where_it_is_on(print_groups) -> None:
    words = ["optimizer.lr=0.5", "optimizer.params.backbone_lr_factor=0.25"]
    text = print_groups("--config-file", TOY, *words, "train.auto_scale=False")
    assert text.startswith("2 groups, 4 tensors, 49 parameters\n")
    assert ROW.findall(text) == [
        ("backbone.weight", "8x4", "0.125", "0.01"),
        ("backbone.bias", "8", "0.125", "0.01"),
        ("head.1.weight", "1x8", "0.5", "0.01"),
        ("head.1.bias", "1", "0.5", "0.01"),
    ]


def test_wrong_groups_end_with_one_clear_line(print_groups) -> None:
    with pytest.raises(SystemExit, match=r"error: backbone_lr_factor=0.1, but no parameter"):
        print_groups("--config-file", TOY, "optimizer.params.backbone_prefix=vit.")


def test_a_model_that_cannot_be_built_ends_with_one_clear_line(print_groups) -> None:
    path = str(CONFIGS / "streampetr_eva02_l_800x320_24ep.py")
    with pytest.raises(
        SystemExit, match=r"error: the configuration's model.backbone.net cannot be built: "
    ):
        print_groups("--config-file", path, "model.backbone.net.num_heads=7")


def test_windows_are_named(print_groups) -> None:
    path = str(CONFIGS / "streampetr_eva02_l_800x320_window8_24ep.py")
    assert "; for 8 windows per step, " in print_groups("--config-file", path).splitlines()[0]


def test_what_is_frozen_is_named(print_groups) -> None:
    text = print_groups(
        "--config-file", TOY, "train.freeze=[{parts:head.1.b},{parts:backbone.,iters:5}]"
    )
    assert text.startswith("2 groups, 3 tensors, 48 parameters")
    assert "\nfrozen: head.1.b* (0.00 M) for good; backbone.* (0.00 M) for the first 5" in text
    assert text.endswith("not trained: 1 tensor, 1 parameters\n  head.1.bias\n")
