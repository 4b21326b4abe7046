"""Every tool with a configuration says in one line what it lacks; numbers and paths are checked."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import benchmark
import check_data
import compare_losses
import convert_checkpoint
import pytest
import quickstart
import visualize

from streampetr_vit.command_line import above_0, at_least, file_path, not_negative
from streampetr_vit.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TOY = str(ROOT / "tests" / "engine" / "toy_config.py")


@pytest.fixture
def toy_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "engine"))


@pytest.mark.usefixtures("toy_task")
@pytest.mark.parametrize(
    ("tool", "words", "message"),
    [
        (benchmark, ["latency", "--device=cpu"], "has no dataloader.train.mapper"),
        (benchmark, ["train", "--device=cpu"], "has no dataloader.train.mapper"),
        (benchmark, ["data", "--device=cpu"], "dataloader.train cannot be built: .*num_workers"),
        (benchmark, ["attention", "--device=cpu"], "has no model.backbone"),
        (compare_losses, ["record", "x.json"], "has no dataloader.train.dataset"),
        (convert_checkpoint, ["in.pth", "out.pth"], "has no model.head"),
        (visualize, ["--out", "pictures"], "has no dataloader.test.dataset"),
    ],
)
def test_a_configuration_without_what_the_tool_reads(
    tool: object, words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message) as stop:
        tool.main([*words, "--config-file", TOY])
    assert len(str(stop.value).splitlines()) == 1 and ": error: " in str(stop.value)


def test_a_benchmark_of_the_vit_needs_one() -> None:
    words = ["attention", "--device=cpu", f"--config-file={ROOT / 'configs/quickstart.py'}"]
    with pytest.raises(SystemExit, match=r"model.backbone \(Identity\) has no net: this measures"):
        benchmark.main([*words, "model.backbone={_target_:torch.nn.Identity}"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-file", str(ROOT / "configs/petr_eva02_l_800x320_24ep.py")], "pass --preset"),
        (["synthetic.preset=huge"], "synthetic.preset is 'huge': pass --preset, one of gpu"),
        (["dataloader.train.dataset=nuscenes_mini_train"], "no folder to make one in: pass --data"),
        (["report=null"], "the quick start ends with metrics and a report"),
        (["dataloader.evaluator=null"], "the quick start ends with metrics and a report"),
    ],
)
def test_what_the_quick_start_needs(words: list[str], message: str) -> None:
    recipe = [] if "--config-file" in words else [f"--config-file={ROOT / 'configs/quickstart.py'}"]
    with pytest.raises(InputError, match=message):
        quickstart.main([*recipe, *words])


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (at_least(1), {"1": 1, "20": 20}, ("0", "-1", "1.5", "x", "", "²")),
        (above_0, {"0.5": 0.5}, ("0", "-1", "nan", "inf", "x", "")),
        (not_negative, {"0": 0.0, "2": 2.0}, ("-1", "nan", "inf", "x", "")),
    ],
)
def test_numbers(parse: Callable[[str], float], good: dict[str, float], bad: list[str]) -> None:
    assert {text: parse(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="must be a"):
            parse(text)
    assert math.isfinite(parse("3"))


def test_home_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert file_path("~/data") == Path("/home/me/data") and file_path("data") == Path("data")
    with pytest.raises(argparse.ArgumentTypeError, match="a path is empty"):
        file_path("")
    arguments = check_data.parse_arguments(["--root=~/d", "--version=v1.0-mini", "--out=~/out"])
    assert (arguments.root, arguments.out) == (Path("/home/me/d"), Path("/home/me/out"))
