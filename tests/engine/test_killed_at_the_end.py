"""A kill while the final checkpoint is written: the resume writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lazyconfig_train_net
import pytest
from crash_test import first_difference
from detectron2.engine import default_argument_parser

from streampetr_vit.checkpoint.loading import SafeCheckpointer, read_checkpoint

CONFIG = str(Path(__file__).with_name("toy_config.py"))


class Killed(BaseException):
    pass


def run(output: Path, *options: str) -> None:
    words = [*options, "--config-file", CONFIG, f"train.output_dir={output}"]
    # The last step has a checkpoint of its own, as always where the period is an epoch.
    words += ["train.max_iter=10", "train.checkpointer.period=5"]
    lazyconfig_train_net.main(default_argument_parser().parse_args(words))


def test_the_final_checkpoint_is_written_after_a_kill_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = SafeCheckpointer.write

    def killed_at_the_end(self: SafeCheckpointer, name: str, *args: Any, **kwargs: Any) -> None:
        if name == "model_final":
            raise Killed
        write(self, name, *args, **kwargs)

    run(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SafeCheckpointer, "write", killed_at_the_end)
        run(tmp_path / "cut")
    run(tmp_path / "cut", "--resume")
    whole, cut = (read_checkpoint(tmp_path / name / "model_final.pth") for name in ("whole", "cut"))
    assert first_difference(whole, cut) is None
