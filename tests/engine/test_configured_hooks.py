"""Hooks from the configuration: what they see, what they keep, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import configured_hooks
import lazyconfig_train_net
import pytest
import torch
from detectron2.config import LazyCall
from detectron2.engine import default_argument_parser, hooks

from streampetr_vit.configuration.targets import trust_options
from streampetr_vit.engine import load_config, train
from streampetr_vit.engine.run_folder import save_config
from streampetr_vit.errors import ConfigError, InputError

CONFIG = str(Path(__file__).with_name("toy_config.py"))
TWO = (
    "train.hooks=[{_target_:configured_hooks.Counting},{_target_:configured_hooks.Counting,by:10}]"
)


def run(output: Path, *more: str, resume: bool = False) -> None:
    options = ["--resume"] if resume else []
    words = ["train.max_iter=6", "train.log_period=1", "train.checkpointer.period=2"]
    arguments = ["--config-file", CONFIG, *options, *words, *more, f"train.output_dir={output}"]
    lazyconfig_train_net.main(default_argument_parser().parse_args(arguments))


def scalars(output: Path, name: str) -> list[float]:
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return [row[name] for row in rows if name in row and "total_loss" in row]


def states(output: Path, name: str = "model_final") -> dict[str, Any]:
    return torch.load(output / f"{name}.pth", weights_only=True)["trainer"]["hooks"]


def test_two_hooks_of_a_class_keep_their_states_over_a_resume(tmp_path: Path) -> None:
    run(tmp_path, TWO)
    assert scalars(tmp_path, "total_by_1") == [1, 2, 3, 4, 5, 6]
    # A checkpoint has the state after its own step, not before it.
    found = states(tmp_path, "model_0000003")
    assert (found["Counting"], found["Counting#2"]) == ({"total": 4}, {"total": 40})
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    (tmp_path / "metrics.json").unlink()
    run(tmp_path, TWO, resume=True)
    assert scalars(tmp_path, "total_by_1") == [5, 6]
    assert scalars(tmp_path, "total_by_10") == [50, 60]
    assert states(tmp_path)["Counting#2"] == {"total": 60}


def test_hooks_of_callers_keep_their_states_too(tmp_path: Path) -> None:
    words = ["train.max_iter=3", f"train.output_dir={tmp_path}", TWO]
    hook = configured_hooks.Counting(by=7)
    train(load_config(CONFIG, words), more_hooks=[hook])
    assert states(tmp_path)["Counting#3"] == {"total": 21}
    later = configured_hooks.Counting(by=7)
    train(load_config(CONFIG, ["train.max_iter=5", *words[1:]]), True, more_hooks=[later])
    assert later.total == 35


def test_the_state_of_a_hook_may_be_of_its_trainer(tmp_path: Path) -> None:
    run(tmp_path, "train.hooks=[{_target_:configured_hooks.AsksTheTrainer}]", "train.max_iter=4")
    assert states(tmp_path)["AsksTheTrainer"] == {"total": 4, "iteration": 3}


def test_a_hook_without_a_state_sees_the_evaluation_of_its_step(tmp_path: Path) -> None:
    run(tmp_path, "train.hooks=[{_target_:configured_hooks.Stateless}]", "train.eval_period=2")
    seen = scalars(tmp_path, "seen_error")
    assert seen[0] == -1 and seen[1] > 0 and seen[2] == seen[1] != seen[3]


def test_a_resume_with_other_hooks_says_so_and_goes_on(tmp_path: Path) -> None:
    run(tmp_path, TWO, "train.max_iter=4")
    run(tmp_path, "train.hooks=[{_target_:configured_hooks.Counting,by:5}]", resume=True)
    assert "this run has no hook Counting#2: its state in the checkpoint" in (
        (tmp_path / "log.txt").read_text()
    )
    assert scalars(tmp_path, "total_by_5") == [9, 14]


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("{_target_:configured_hooks.no_hook}", r"train.hooks\[1\] makes a int, which is no hook"),
        ("{_target_:configured_hooks.OneWay}", r"train.hooks\[1\]: OneWay has state_dict and no"),
        (
            "{_target_:configured_hooks.HoldsASet}",
            r"train.hooks\[1\]: the state of HoldsASet cannot be saved: it holds a builtins.set",
        ),
        ("{_target_:configured_hooks.Counting,bye:3}", "train.hooks.1 has bye, which Counting"),
        ("{_target_:configured_hooks.Counting,by:x}", "train.hooks.1.by='x' is not allowed"),
        ("{_target_:configured_hooks.Gone}", r"train.hooks\[1\]._target_=configured_hooks.Gone"),
        ("{by:3}", "train.hooks=.* is not allowed: it must be a list in brackets"),
    ],
)
def test_what_is_no_hook_ends_the_run_before_it_begins(
    tmp_path: Path, described: str, message: str
) -> None:
    good = "{_target_:configured_hooks.Counting}"
    words = [f"train.hooks=[{good},{described}]", f"train.output_dir={tmp_path}"]
    with pytest.raises((ConfigError, InputError), match=message):
        train(load_config(CONFIG, words))
    assert not list(tmp_path.iterdir())


def saved_config(tmp_path: Path, hook: Any) -> str:
    """A config.yaml whose other parts need no trust."""
    cfg = load_config(str(Path(CONFIG).parents[2] / "configs" / "quickstart.py"))
    cfg.train.hooks = [LazyCall(hook)()]
    save_config(cfg, str(tmp_path))
    return str(tmp_path / "config.yaml")


def test_a_saved_configuration_with_an_own_hook_says_how_to_go_on(tmp_path: Path) -> None:
    path = saved_config(tmp_path, configured_hooks.Counting)
    message = r"train.hooks.0._target_='configured_hooks.Counting'.*own: --trust configured_hooks\)"
    with pytest.raises(ConfigError, match=message):
        load_config(path)
    assert load_config(path, trusted=["configured_hooks"]).train.hooks[0]


def test_of_detectron2s_hooks_a_saved_configuration_may_name_what_writes_nothing(
    tmp_path: Path,
) -> None:
    assert load_config(saved_config(tmp_path, hooks.TorchMemoryStats)).train.hooks[0]
    with pytest.raises(ConfigError, match="stands for .*AutogradProfiler, which is not allowed"):
        load_config(saved_config(tmp_path, hooks.AutogradProfiler))


def test_the_command_to_go_on_trusts_what_the_run_names(tmp_path: Path) -> None:
    run(tmp_path, TWO, "train.max_iter=4")
    cfg = load_config(CONFIG, [TWO])
    options = trust_options(cfg)
    assert options == ["--trust configured_hooks", "--trust toy_task"]
    trusted = [option.split()[1] for option in options]
    assert load_config(str(tmp_path / "config.yaml"), trusted=trusted).train.max_iter == 4
