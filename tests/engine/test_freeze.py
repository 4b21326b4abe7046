"""Parts that are not trained: for the first steps, or at all; on the toy task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lazyconfig_train_net
import pytest
import torch
from detectron2.engine import HookBase, default_argument_parser
from torch import Tensor, nn
from toy_task import ToyDetector, equal

from streampetr_vit.engine import load_config, train
from streampetr_vit.engine.freeze import FreezeHook, Freezing
from streampetr_vit.engine.processes import launch
from streampetr_vit.errors import ConfigError, InputError

CONFIG = str(Path(__file__).with_name("toy_config.py"))
FIRST_7 = "train.freeze=[{parts:backbone.,iters:7}]"


def words(output: Path, *more: str) -> list[str]:
    own = ["train.max_iter=12", "train.checkpointer={period:1,max_to_keep:null}"]
    return [*own, "model.remembers=True", *more, f"train.output_dir={output}"]


def run(output: Path, *more: str) -> None:
    options = [word for word in more if word.startswith("--")]
    rest = [word for word in more if not word.startswith("--")]
    arguments = ["--config-file", CONFIG, *options, *words(output, *rest)]
    lazyconfig_train_net.main(default_argument_parser().parse_args(arguments))


def saved(output: Path, name: str = "model_final") -> dict[str, Any]:
    return torch.load(output / f"{name}.pth", weights_only=True)


def weights(output: Path, step: int) -> dict[str, Tensor]:
    return saved(output, "model_final" if step == 11 else f"model_{step:07d}")["model"]


class GradientWatcher(HookBase):
    """Notes which parameters have a gradient after each step."""

    def __init__(self) -> None:
        self.steps: list[set[str]] = []

    def after_step(self) -> None:
        model = self.trainer.model.model
        self.steps.append({k for k, p in model.named_parameters() if p.grad is not None})


def test_a_part_trains_after_its_first_steps(tmp_path: Path) -> None:
    watcher = GradientWatcher()
    cfg = load_config(CONFIG, words(tmp_path, FIRST_7))
    # A decay that would be seen.
    cfg.optimizer.params.weight_decay = 0.5
    train(cfg, more_hooks=[watcher])
    head = {"head.1.weight", "head.1.bias"}
    backbone = {"backbone.weight", "backbone.bias"}
    assert watcher.steps == [head] * 7 + [head | backbone] * 5
    first = weights(tmp_path, 0)
    for step in range(1, 12):
        now = weights(tmp_path, step)
        assert all(torch.equal(first[name], now[name]) == (step < 7) for name in backbone)
        assert not any(torch.equal(first[name], now[name]) for name in head)
    # Its moments begin with its training.
    state = saved(tmp_path)["trainer"]["optimizer"]["state"]
    assert sorted(int(entry["step"]) for entry in state.values()) == [5, 5, 12, 12]


def test_a_part_that_is_frozen_for_good_is_no_part_of_the_optimiser(tmp_path: Path) -> None:
    run(tmp_path, "train.freeze=[{parts:head.1.bias}]")
    assert torch.equal(*(weights(tmp_path, step)["head.1.bias"] for step in (0, 11)))
    assert not torch.equal(*(weights(tmp_path, step)["head.1.weight"] for step in (0, 11)))
    groups = saved(tmp_path)["trainer"]["optimizer"]["param_groups"]
    assert sum(len(group["params"]) for group in groups) == 3
    assert "  frozen         head.1.bias* (0.00 M) for good\n" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("step", [3, 6, 7, 9])
def test_a_resume_before_at_and_after_the_boundary_is_exact(tmp_path: Path, step: int) -> None:
    run(tmp_path, FIRST_7)
    # The module is made anew once, and not before the first step.
    lines = (tmp_path / "log.txt").read_text().splitlines()
    begins = [line for line in lines if "parts that were frozen train now" in line]
    assert len(begins) == 1 and "iteration 7:" in begins[0]
    whole = saved(tmp_path)
    (tmp_path / "last_checkpoint").write_text(f"model_{step:07d}.pth")
    run(tmp_path, "--resume", FIRST_7)
    log = (tmp_path / "log.txt").read_text()
    assert f"training from iteration {step + 1} to 12" in log
    assert "backbone.* (0.00 M) for the first 7 iterations" in log
    assert equal(whole, saved(tmp_path))


def test_without_freezing_the_end_would_be_another(tmp_path: Path) -> None:
    run(tmp_path / "frozen", FIRST_7)
    run(tmp_path / "free")
    assert not equal(saved(tmp_path / "frozen")["model"], saved(tmp_path / "free")["model"])


def test_two_processes_freeze_as_one_does(tmp_path: Path, quick_processes: None) -> None:
    """In DDP: what was frozen when it was made would not be averaged over the processes."""
    run(tmp_path / "one", FIRST_7)
    more = words(tmp_path / "two", FIRST_7, "dataloader.train.lanes_per_rank=2")
    arguments = default_argument_parser().parse_args(["--config-file", CONFIG, *more])
    launch(lazyconfig_train_net.main, (arguments,), num_processes=2, use_gpu=False)
    for step in (6, 8, 11):
        one, two = (weights(tmp_path / name, step) for name in ("one", "two"))
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
    # And a resume across the boundary.
    whole = saved(tmp_path / "two")
    (tmp_path / "two" / "last_checkpoint").write_text("model_0000008.pth")
    arguments.resume = True
    launch(lazyconfig_train_net.main, (arguments,), num_processes=2, use_gpu=False)
    assert equal(whole, saved(tmp_path / "two"))


def requiring(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


def test_the_longest_of_several_entries_counts() -> None:
    model = ToyDetector()
    entries = [
        {"parts": "backbone.", "iters": 5},
        {"parts": "backbone.w", "iters": 3},
        {"parts": "backbone.b"},
    ]
    freezing = Freezing(model, entries)
    # The optimiser takes in what will be trained.
    assert requiring(model) == ["backbone.weight", "head.1.weight", "head.1.bias"]
    assert freezing.at(0) and requiring(model) == ["head.1.weight", "head.1.bias"]
    assert not freezing.at(4)
    assert freezing.at(5) and not freezing.at(6)
    assert requiring(model) == ["backbone.weight", "head.1.weight", "head.1.bias"]


def test_what_the_model_never_trains_does_not_begin_to() -> None:
    model = ToyDetector()
    model.backbone.bias.requires_grad_(False)
    freezing = Freezing(model, [{"parts": "backbone.", "iters": 1}])
    freezing.at(0)
    freezing.at(1)
    assert requiring(model) == ["backbone.weight", "head.1.weight", "head.1.bias"]


def test_the_module_is_wrapped_anew_only_where_something_changes() -> None:
    made: list[nn.Module] = []

    class Trainer:
        iter, model = 0, None

        def set_model(self, model: nn.Module) -> None:
            self.model = model

    def wrap() -> nn.Module:
        made.append(nn.Identity())
        return made[-1]

    freezing = Freezing(ToyDetector(), [{"parts": "backbone.", "iters": 2}])
    freezing.at(0)
    hook, trainer = FreezeHook(freezing, wrap), Trainer()
    hook.trainer = trainer
    counts = []
    for trainer.iter in range(4):
        hook.before_step()
        counts.append(len(made))
    assert counts == [0, 0, 1, 1] and trainer.model is made[0]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [{"parts": "bakbone."}],
            r"names 'bakbone.', but no parameter of ToyDetector starts .* are backbone$",
        ),
        ([{"parts": "backbone.weigth"}], r"There are backbone.weight, backbone.bias$"),
        ([{"parts": "zzz"}], "There are backbone, head$"),
        ([{"parts": "backbone."}, {"parts": "head.", "iters": 9}], "leaves no parameter .* first"),
        ([{"parts": "backbone."}, {"parts": "head."}], "leaves no parameter of ToyDetector"),
    ],
)
def test_entries_that_cannot_be_meant(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Freezing(ToyDetector(), entries)


@pytest.mark.parametrize(
    "entry",
    ["3", "backbone", "{}", "{iters:3}", "{parts:''}", "{parts:a,iters:0}", "{parts:a,b:1}"],
)
def test_an_entry_has_parts_and_may_have_iters(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"train.freeze=.* is not allowed.*beside it iters:N"):
        load_config(CONFIG, [f"train.freeze=[{entry}]"])


def test_a_resume_without_the_freezing_of_the_checkpoint_names_it(tmp_path: Path) -> None:
    run(tmp_path, "train.freeze=[{parts:head.1.bias}]")
    with pytest.raises(SystemExit, match="Resume with the model, train.freeze and optimizer"):
        run(tmp_path, "--resume")
