"""What callers of `train` add to it, and what stops a run before it begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.engine import HookBase
from omegaconf import DictConfig

from streampetr_vit.configuration.arguments import arguments_of
from streampetr_vit.engine import evaluate_only, load_config, train
from streampetr_vit.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(Path(__file__).with_name("toy_config.py"))


class Watcher(HookBase):
    """Notes the moments of a training, and puts a scalar of its own."""

    def __init__(self) -> None:
        self.moments: list[str] = []
        self.order: list[str] = []

    def before_train(self) -> None:
        self.moments.append("before_train")
        self.order = [type(hook).__name__ for hook in self.trainer._hooks]

    def before_step(self) -> None:
        self.moments.append(f"before_step {self.trainer.iter}")

    def after_step(self) -> None:
        self.moments.append(f"after_step {self.trainer.iter}")
        self.trainer.storage.put_scalar("watched", 10.0 + self.trainer.iter, smoothing_hint=False)

    def after_train(self) -> None:
        self.moments.append("after_train")


def test_more_hooks_see_every_step_and_what_they_measure_is_logged(tmp_path: Path) -> None:
    watcher = Watcher()
    words = ["train.max_iter=3", "train.log_period=1", f"train.output_dir={tmp_path}"]
    train(load_config(CONFIG, words), more_hooks=[watcher])
    steps = [f"{moment} {step}" for step in range(3) for moment in ("before_step", "after_step")]
    assert watcher.moments == ["before_train", *steps, "after_train"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [row["watched"] for row in rows if "total_loss" in row] == [10.0, 11.0, 12.0]


def test_the_loops_own_hooks_act_in_the_order_that_a_step_needs(tmp_path: Path) -> None:
    watcher = Watcher()
    cfg = load_config(CONFIG, ["train.max_iter=1", f"train.output_dir={tmp_path}"])
    train(cfg, more_hooks=[watcher])
    assert watcher.order == [
        "IterationTimer",
        "ScheduleHook",
        "FreezeHook",
        "StreamStateHook",
        "BatchHook",
        "CheckpointHook",
        "StopHook",
        "PeriodicEvaluation",
        "Watcher",
        "LogHook",
    ]


@pytest.fixture
def nine_classes(tmp_path: Path) -> DictConfig:
    """The quick start with a head of nine classes for ten; its data set does not exist."""
    words = ["model.head.num_classes=9", "train.device=cpu", f"train.output_dir={tmp_path}"]
    return load_config(str(ROOT / "configs" / "quickstart.py"), words)


def test_neither_training_nor_evaluation_begins_with_a_wrong_number_of_classes(
    nine_classes: DictConfig, tmp_path: Path
) -> None:
    message = "model.head.num_classes is 9, but dataset_spec.classes has 10"
    for run in (train, evaluate_only):
        with pytest.raises(InputError, match=message):
            run(nine_classes)
    assert not list(tmp_path.iterdir())


class Base:
    def __init__(self, depth: int, *, width: int = 3) -> None:
        self.depth, self.width = depth, width


class Passes(Base):
    def __init__(self, name: str, **options: int) -> None:
        super().__init__(**options)
        self.name = name


class PassesTwice(Passes):
    def __init__(self, *names: str, width: int = 4, **options: int) -> None:
        super().__init__(names[0], width=width, **options)


class Closed(Passes):
    def __init__(self, name: str) -> None:
        super().__init__(name, depth=1)


def function(size: int, /, scale: float, *, mode: str = "a", **options: int) -> None:
    """A target that is no class."""


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (Base, ["depth", "width"]),
        (Passes, ["name", "depth", "width"]),
        (PassesTwice, ["width", "name", "depth"]),
        (Closed, ["name"]),  # what its base class takes cannot be given
        (function, ["scale", "mode"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_arguments_that_an_override_may_set(target: object, names: list[str]) -> None:
    assert list(arguments_of(target)[0]) == names
