"""torchrun takes the commands that the help and the page show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import predict
import pytest
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "projects" / "StreamPETR_ViT" / "docs" / "inference.md"


@pytest.mark.parametrize("text", [predict.EXAMPLES, PAGE.read_text()], ids=["help", "page"])
def test_options_of_the_tool_are_not_taken_for_those_of_torchrun(text: str) -> None:
    commands = re.findall(r"torchrun (.*)", text.replace("\\\n", " "))
    (words,) = map(shlex.split, commands)
    args = get_args_parser().parse_args(words)
    assert args.training_script == "tools/predict.py" and args.nproc_per_node == "2"
    own = [word for word in args.training_script_args if word != "--"]
    assert predict.parse_arguments(own).run == Path("output/quickstart")
