"""The average of the weights in a training: its steps, checkpoints, resumes and evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lazyconfig_train_net
import pytest
import torch
from detectron2.engine import default_argument_parser
from omegaconf import DictConfig
from torch import nn

from streampetr_vit.engine import build_model, evaluation, load_config, train
from streampetr_vit.engine.hooks import HookBase
from streampetr_vit.errors import ConfigError, InputError
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.solver import WeightAverage

CONFIG = str(Path(__file__).with_name("toy_config.py"))
ROOT = Path(__file__).resolve().parents[2]
EMA = "train.ema={decay:0.9,warmup_iters:3,start_iter:2}"


def run(output: Path, *arguments: str) -> None:
    words = ["--config-file", CONFIG, *arguments, f"train.output_dir={output}"]
    lazyconfig_train_net.main(default_argument_parser().parse_args(words))


def final(output: Path) -> dict[str, Any]:
    return torch.load(output / "model_final.pth", weights_only=True)


def last_metrics(output: Path) -> dict[str, float]:
    return json.loads((output / "metrics.json").read_text().splitlines()[-1])


def log(output: Path) -> str:
    return (output / "log.txt").read_text()


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class Weights(HookBase):
    """Keeps a copy of the weights after each step."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def after_step(self) -> None:
        self.seen.append(self.trainer.model.model.backbone.weight.detach().clone())


def test_each_step_moves_the_average_and_a_skipped_one_does_not(tmp_path: Path) -> None:
    """Step 3 has the samples 12 to 15, one of them without a target."""
    words = [EMA, "train.max_iter=6", "dataloader.train.bad=[13]", f"train.output_dir={tmp_path}"]
    weights = Weights()
    train(load_config(CONFIG, words), more_hooks=[weights])
    assert torch.equal(weights.seen[3], weights.seen[2])
    expected = weights.seen[1]  # until two steps are done
    for iteration in (2, 4, 5):
        updates = torch.tensor(iteration + 1 - 2)
        decay = 0.9 * (1 - torch.exp(-updates / 3))
        expected = decay * expected + (1 - decay) * weights.seen[iteration]
    content = final(tmp_path)
    torch.testing.assert_close(content["ema"]["backbone.weight"], expected)
    assert content["ema"].keys() == content["model"].keys()
    assert not torch.allclose(expected, content["model"]["backbone.weight"])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_resumed_average_equals_an_uninterrupted_one(tmp_path: Path, steps: int) -> None:
    run(tmp_path / "whole", EMA, "train.max_iter=9")
    words = [EMA, "train.max_iter=9", f"train.checkpointer.period={steps}"]
    run(tmp_path / "cut", *words, "train.checkpointer.max_to_keep=null")
    first = f"model_{steps - 1:07d}.pth"
    (tmp_path / "cut" / "last_checkpoint").write_text(first)
    for path in (tmp_path / "cut").glob("model_*.pth"):
        if path.name != first:
            path.unlink()
    run(tmp_path / "cut", "--resume", *words)
    assert f"training from iteration {steps} to 9" in log(tmp_path / "cut")
    whole, cut = final(tmp_path / "whole"), final(tmp_path / "cut")
    assert are_equal(whole["ema"], cut["ema"]) and are_equal(whole["model"], cut["model"])
    assert "no average of the weights" not in log(tmp_path / "cut")


def test_a_resume_may_begin_an_average_or_leave_it_out(tmp_path: Path) -> None:
    run(tmp_path, "train.max_iter=4")
    start = final(tmp_path)
    assert "ema" not in start and last_metrics(tmp_path).keys() == {"iteration", "toy/error"}
    words = ["train.max_iter=5", "train.ema={decay:0.75,warmup_iters:0}"]
    run(tmp_path, "--resume", *words)
    content = final(tmp_path)
    for name, value in start["model"].items():
        expected = 0.75 * value + 0.25 * content["model"][name]
        torch.testing.assert_close(content["ema"][name], expected)
    assert log(tmp_path).count("no average of the weights (ema): it starts at its weights") == 1
    run(tmp_path, "--resume", "train.max_iter=6")
    assert "ema" not in final(tmp_path)
    assert log(tmp_path).count("is left out: train.ema is null") == 1


def test_a_training_from_a_file_starts_its_average_there(tmp_path: Path) -> None:
    run(tmp_path / "first", "train.max_iter=3")
    weights = f"train.init_checkpoint={tmp_path / 'first' / 'model_final.pth'}"
    words = ["train.max_iter=1", "train.ema={decay:0.75,warmup_iters:0}"]
    run(tmp_path / "next", weights, *words)
    content = final(tmp_path / "next")
    for name, value in final(tmp_path / "first")["model"].items():
        expected = 0.75 * value + 0.25 * content["model"][name]
        torch.testing.assert_close(content["ema"][name], expected)
    assert "no average of the weights" not in log(tmp_path / "next")


def test_weights_and_average_are_evaluated_in_training_and_alone(tmp_path: Path) -> None:
    run(tmp_path / "run", EMA, "train.max_iter=6", "train.eval_period=3")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.json").read_text().splitlines()]
    evaluated = [row for row in rows if "toy/error" in row]
    assert len(evaluated) == 2 and all("toy_ema/error" in row for row in evaluated)
    both = last_metrics(tmp_path / "run")
    assert both["toy/error"] != both["toy_ema/error"]
    weights = f"train.init_checkpoint={tmp_path / 'run' / 'model_final.pth'}"
    cfg = load_config(CONFIG, [weights, EMA, f"train.output_dir={tmp_path / 'alone'}"])
    found = evaluation.evaluate_only(cfg)
    assert found == {name: {"error": both[f"{name}/error"]} for name in ("toy", "toy_ema")}
    cfg.train.init_weights = "ema"  # the average stands where the weights did
    assert evaluation.evaluate_only(cfg) == {"toy": {"error": both["toy_ema/error"]}}


def test_a_file_without_an_average(tmp_path: Path) -> None:
    run(tmp_path / "run", "train.max_iter=2")
    weights = f"train.init_checkpoint={tmp_path / 'run' / 'model_final.pth'}"
    message = r"no averaged weights \(ema or .*only: model, trainer, .*train.init_weights=model"
    for words in (["--eval-only"], ["train.max_iter=3"]):
        with pytest.raises(SystemExit, match=message):
            run(tmp_path / "next", *words, weights, "train.init_weights=ema")
    run(tmp_path / "alone", "--eval-only", weights, EMA)
    assert "there is no row of it" in log(tmp_path / "alone")


def test_a_training_may_start_from_an_average(tmp_path: Path) -> None:
    run(tmp_path / "run", EMA, "train.max_iter=5")
    weights = f"train.init_checkpoint={tmp_path / 'run' / 'model_final.pth'}"
    run(
        tmp_path / "next",
        weights,
        "train.init_weights=ema",
        "optimizer.lr=0",
        "train.max_iter=1",
        "optimizer.weight_decay=0",
    )
    assert are_equal(final(tmp_path / "next")["model"], final(tmp_path / "run")["ema"])


def test_a_failing_evaluation_of_the_average_saves_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = evaluation.evaluate

    def evaluate(cfg: DictConfig, model: nn.Module, *more: Any, **options: Any) -> Any:
        if more:  # a folder of its own
            raise InputError("of the average")
        return original(cfg, model, **options)

    run(tmp_path / "whole", EMA, "train.max_iter=4")
    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    with pytest.raises(SystemExit, match="of the average"):
        run(tmp_path / "cut", EMA, "train.max_iter=8", "train.eval_period=4")
    content = torch.load(tmp_path / "cut" / "model_0000003.pth", weights_only=True)
    name = "backbone.weight"
    assert not torch.equal(content["model"][name], content["ema"][name])
    monkeypatch.undo()
    run(tmp_path / "cut", "--resume", EMA, "train.max_iter=8")
    run(tmp_path / "untouched", EMA, "train.max_iter=8")
    assert are_equal(final(tmp_path / "cut")["ema"], final(tmp_path / "untouched")["ema"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.ema={decay:1}", "train.ema.decay=1 .*from 0 to below 1"),
        ("train.ema={decay:-0.1}", "train.ema.decay=-0.1"),
        ("train.ema={warmup_iters:0.5}", "train.ema.warmup_iters=0.5"),
        ("train.ema={start_iter:-1}", "train.ema.start_iter=-1"),
        ("train.ema={rate:0.9}", "train.ema has rate, which WeightAverage does not take; it takes"),
        ("train.ema={_target_:a.b}", "train.ema has _target_, which WeightAverage does not take"),
        ("train.ema=True", "train.ema=True is not allowed"),
        ("train.init_weights=averaged", "train.init_weights='averaged' .*one of 'model', 'ema'"),
    ],
)
def test_wrong_settings_are_named(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIG, [word])


def test_the_recipe_says_what_is_averaged(tmp_path: Path) -> None:
    run(tmp_path / "with", "train.ema={decay:0.99,start_iter:2}", "train.max_iter=1")
    text = "weight average decay 0.99, warmed up over 1000 iterations, after 2 iterations\n"
    assert text in log(tmp_path / "with")
    run(tmp_path / "without", "train.max_iter=1")
    assert "weight average none\n" in log(tmp_path / "without")


def test_a_detector_and_its_average_are_two_rows_of_the_report(
    tiny_nuscenes: Path, tmp_path: Path
) -> None:
    cfg = load_config(str(ROOT / "configs" / "quickstart.py"), ["train.device=cpu"])
    dataset = dict(root=str(tiny_nuscenes), version="v1.0-mini", split="mini_val")
    cfg.dataloader.test.dataset = dataset
    cfg.train.output_dir, cfg.report.memory_off = str(tmp_path), False
    torch.manual_seed(0)
    model = build_model(cfg)
    assert isinstance(model, StreamPETR)
    average = WeightAverage(model)
    torch.manual_seed(1)
    average.load_state_dict(build_model(cfg).state_dict())
    results = evaluation.evaluate_and_report(cfg, model, average)
    assert set(results) == {"bbox3d", "bbox3d_ema", "tracking", "tracking_ema"}
    assert results["bbox3d"].keys() == results["bbox3d_ema"].keys()
    boxes = [
        json.loads((tmp_path / folder / "results_nusc.json").read_text())["results"]
        for folder in ("inference", "inference_ema")
    ]
    assert boxes[0] != boxes[1]
    report = (tmp_path / "report.html").read_text()
    assert "memory on" in report and "average of the weights (EMA)" in report
