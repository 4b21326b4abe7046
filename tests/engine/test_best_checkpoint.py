"""The checkpoint with the best metric: when it is written, and that a resume does not forget it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lazyconfig_train_net
import numpy as np
import pytest
import torch
from detectron2.engine import default_argument_parser
from toy_task import ToyEvaluator, equal

from streampetr_vit.checkpoint.manifest import damage
from streampetr_vit.engine import load_config, train
from streampetr_vit.engine.processes import launch
from streampetr_vit.errors import InputError

CONFIG = str(Path(__file__).with_name("toy_config.py"))
NAN = float("nan")


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the evaluations of a test find, one after the other."""
    found: list[Any] = []
    monkeypatch.setattr(ToyEvaluator, "evaluate", lambda _: {"toy": {"error": found.pop(0)}})
    yield found
    assert found == []


def parsed(output: Path, *more: str, resume: bool = False, mode: str = "min") -> Any:
    options = ["--resume"] if resume else []
    words = ["train.max_iter=12", "train.eval_period=3", "train.checkpointer.period=3"]
    words += [f"train.best_checkpoint={{metric:toy/error,mode:{mode}}}", *more]
    arguments = ["--config-file", CONFIG, *options, *words, f"train.output_dir={output}"]
    return default_argument_parser().parse_args(arguments)


def run(output: Path, *more: str, resume: bool = False, mode: str = "min") -> None:
    lazyconfig_train_net.main(parsed(output, *more, resume=resume, mode=mode))


def content(output: Path, name: str = "model_best") -> dict[str, Any]:
    path = output / f"{name}.pth"
    assert damage(path) is None
    return torch.load(path, weights_only=True)


def best(output: Path, name: str = "model_best") -> tuple[int, float]:
    """The step of a checkpoint, and the best value that it knows."""
    found = content(output, name)
    assert found["iteration"] == found["trainer"]["iteration"]
    state = found["trainer"]["hooks"]["BestCheckpointHook"]
    assert state["metric"] in ("toy/error", "toy_ema/error") and state["mode"] in ("min", "max")
    return found["iteration"], state["best"]


@pytest.mark.parametrize(
    ("values", "mode", "step", "value"),
    [
        ([3.0, 1.0, 2.0, 1.5], "min", 5, 1.0),
        ([3.0, 1.0, 4.0, 1.5], "max", 8, 4.0),
        ([3.0, 1.0, 1.0, 1.0], "min", 5, 1.0),  # the first of equals
        ([3.0, 4.0, 4.0, 1.0], "max", 5, 4.0),
        ([3.0, 2.0, 2.5, 1.5], "min", 11, 1.5),  # the evaluation at the end
        ([NAN, 2.0, NAN, 3.0], "min", 5, 2.0),
        ([-float("inf"), np.float32(2.0), NAN, 3.0], "min", 5, 2.0),
    ],
)
def test_the_best_evaluation_is_kept_beside_the_last(
    tmp_path: Path, errors: list[Any], values: list[Any], mode: str, step: int, value: float
) -> None:
    errors += values
    run(tmp_path, mode=mode)
    assert best(tmp_path) == (step, value)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert equal(content(tmp_path)["model"], content(tmp_path, "model_final")["model"]) == (
        step == 11
    )
    names = sorted(path.name for path in tmp_path.glob("model_*.pth"))
    assert names == ["model_0000005.pth", "model_0000008.pth", "model_best.pth", "model_final.pth"]


def test_without_a_finite_value_there_is_no_best(tmp_path: Path, errors: list[Any]) -> None:
    errors += [NAN, NAN, NAN, NAN]
    run(tmp_path)
    assert not (tmp_path / "model_best.pth").exists()
    assert "toy/error is nan: not the best" in (tmp_path / "log.txt").read_text()


def test_a_resume_knows_what_was_best(tmp_path: Path, errors: list[Any]) -> None:
    errors += [3.0, 1.0, 2.0, 2.0]
    run(tmp_path)
    whole = content(tmp_path)
    # The checkpoint of step 5 was written before the evaluation of that step.
    (tmp_path / "last_checkpoint").write_text("model_0000008.pth")
    errors += [2.0]
    run(tmp_path, resume=True)
    assert best(tmp_path) == (5, 1.0) and equal(whole, content(tmp_path))
    assert best(tmp_path, "model_final") == (11, 1.0)


def test_the_evaluation_after_the_checkpoint_of_a_step_is_not_forgotten(
    tmp_path: Path, errors: list[Any]
) -> None:
    errors += [3.0, 1.0, 2.0, 2.0]
    run(tmp_path, "train.checkpointer.max_to_keep=null")
    assert best(tmp_path, "model_0000005") == (5, 3.0)
    (tmp_path / "last_checkpoint").write_text("model_0000005.pth")
    errors += [1.5, 1.2]
    run(tmp_path, "train.checkpointer.max_to_keep=null", resume=True)
    assert best(tmp_path) == (5, 1.0)


def test_the_best_checkpoint_can_be_resumed_from(tmp_path: Path, errors: list[Any]) -> None:
    errors += [3.0, 1.0, 2.0, 0.5]
    run(tmp_path)
    whole = content(tmp_path, "model_final")
    # That of the last step, which was saved after the loop: there is nothing left to train.
    (tmp_path / "last_checkpoint").write_text("model_best.pth")
    errors += [0.5]
    run(tmp_path, resume=True)
    assert "nothing is left to train" in (tmp_path / "log.txt").read_text()
    assert best(tmp_path) == (11, 0.5) and equal(whole, content(tmp_path, "model_final"))


def test_an_evaluation_of_a_run_with_nothing_left_to_train_can_be_the_best(
    tmp_path: Path, errors: list[Any]
) -> None:
    errors += [3.0, 3.0, 3.0, 3.0, 1.0]
    run(tmp_path)
    run(tmp_path, resume=True)
    assert best(tmp_path) == (11, 1.0)
    assert equal(content(tmp_path)["model"], content(tmp_path, "model_final")["model"])


@pytest.mark.parametrize("how", ["gone", "damaged", "of another metric", "of another mode"])
def test_a_best_checkpoint_that_cannot_be_compared_with_is_replaced(
    tmp_path: Path, errors: list[Any], how: str
) -> None:
    errors += [3.0, 1.0, 2.0, 2.0]
    run(tmp_path)
    (tmp_path / "last_checkpoint").write_text("model_0000008.pth")
    path, mode, line = tmp_path / "model_best.pth", "min", "is gone: the next evaluation writes it"
    if how == "gone":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
        line = "is replaced by the next evaluation: its SHA-256"
    elif how == "of another mode":
        mode, line = "max", "was not chosen by the max of toy/error: the next evaluation replaces"
    else:
        file = content(tmp_path)
        file["trainer"]["hooks"]["BestCheckpointHook"]["metric"] = "toy/other"
        torch.save(file, path)
        (tmp_path / "checkpoints.sha256").unlink()
        line = "was not chosen by the min of toy/error: the next evaluation replaces it"
    errors += [2.5]
    run(tmp_path, resume=True, mode=mode)
    assert best(tmp_path) == (11, 2.5)
    assert line in (tmp_path / "log.txt").read_text()


def test_an_unknown_metric_ends_the_run_with_its_steps_saved(
    tmp_path: Path, errors: list[Any]
) -> None:
    errors += [3.0]
    words = ["train.best_checkpoint.metric=toy/eror", "train.checkpointer.period=100"]
    message = "metric='toy/eror' is no metric of this evaluation, which has toy/error. The training"
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *words)
    assert content(tmp_path, "model_0000002")["iteration"] == 2
    errors += [3.0, 1.0, 2.0, 2.0]  # that of step 2 is made up for
    run(tmp_path, resume=True)
    assert best(tmp_path) == (5, 1.0)


def test_without_an_evaluation_it_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    words = ["train.best_checkpoint={metric:a}", f"train.output_dir={tmp_path}"]
    cfg = load_config(CONFIG, [*words, "dataloader.evaluator=null"])
    with pytest.raises(InputError, match="train.best_checkpoint needs an evaluation, and"):
        train(cfg)
    assert not list(tmp_path.glob("*.pth"))


def test_a_metric_of_an_average_that_is_not_kept_is_an_error_before_the_first_step(
    tmp_path: Path, errors: list[Any]
) -> None:
    words = ["train.best_checkpoint.metric=toy_ema/error"]
    with pytest.raises(SystemExit, match="'toy_ema/error' is of the average .* set train.ema={}"):
        run(tmp_path, *words)
    errors += [3.0, 1.0] * 4  # of the weights and of the average
    run(tmp_path, *words, "train.ema={}")
    assert best(tmp_path)[1] == 1.0


def test_the_space_for_it_is_counted(
    tmp_path: Path, errors: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    message = r"5 files of .*: 2 by .* max_to_keep, model_final.pth, model_best.pth, one being"
    with pytest.raises(SystemExit, match=message):
        run(tmp_path)


def test_a_new_training_moves_it_aside(tmp_path: Path, errors: list[Any]) -> None:
    errors += [1.0] * 4 + [2.0] * 4
    run(tmp_path)
    run(tmp_path)
    assert best(tmp_path / "earlier_1") == (2, 1.0) and best(tmp_path) == (2, 2.0)


def test_two_processes_agree_on_the_best(tmp_path: Path, quick_processes: None) -> None:
    """Only rank 0 has the metrics, and all give their part of the checkpoint."""
    words = ["dataloader.train.lanes_per_rank=2", "model.remembers=True", "optimizer.lr=0.2"]
    arguments = parsed(tmp_path, *words, mode="max")
    launch(lazyconfig_train_net.main, (arguments,), num_processes=2, use_gpu=False)
    step, value = best(tmp_path)
    # The error falls: the largest is the first.
    assert step == 2 and value > 0
    assert content(tmp_path)["memories"]["memory"].shape == (4,)
    arguments = parsed(tmp_path, "train.best_checkpoint.metric=x", *words[:2], resume=True)
    (tmp_path / "last_checkpoint").write_text("model_0000008.pth")
    with pytest.raises(SystemExit):
        launch(lazyconfig_train_net.main, (arguments,), num_processes=2, use_gpu=False)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
