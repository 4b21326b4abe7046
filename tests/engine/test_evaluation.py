"""`evaluate` on the real detector and data: precision and memory are those that were asked for."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from streampetr_vit.engine import build_model, evaluate, evaluation, load_config
from streampetr_vit.engine.config import call
from streampetr_vit.engine.evaluators import results_folder
from streampetr_vit.inference import Stream

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe(tiny_nuscenes: Path, tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    cfg = load_config(str(ROOT / "configs" / "quickstart.py"), ["train.device=cpu"])
    cfg.dataloader.test.dataset = dict(
        root=str(tiny_nuscenes), version="v1.0-mini", split="mini_val"
    )
    cfg.train.output_dir = str(tmp_path_factory.mktemp("evaluation"))
    return cfg


@pytest.fixture(scope="module")
def model(recipe: DictConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(recipe)


def results(cfg: DictConfig, model: torch.nn.Module, name: str, **options: Any) -> dict[str, Any]:
    folder = Path(cfg.train.output_dir) / name
    evaluate(cfg, model, str(folder), **options)
    return json.loads((folder / "results_nusc.json").read_text())["results"]


def test_the_memory_is_on_off_or_as_the_configuration_says(
    recipe: DictConfig, model: torch.nn.Module
) -> None:
    on, off = (results(recipe, model, f"memory {m}", memory=m) for m in (True, False))
    assert on != off
    assert results(recipe, model, "default") == on
    recipe.model.memory_at_test = False
    try:
        assert results(recipe, model, "configured") == off
    finally:
        recipe.model.memory_at_test = True


def test_the_network_runs_in_the_evaluations_precision_and_the_data_in_float32(
    recipe: DictConfig, model: torch.nn.Module
) -> None:
    exact = results(recipe, model, "float32")
    recipe.train.eval_precision = "bf16"
    try:
        rounded = results(recipe, model, "bf16")
    finally:
        recipe.train.eval_precision = "float32"
    assert rounded != exact
    stream = Stream(model.eval(), "bf16")
    samples = list(call(recipe.dataloader.test, rank=0, world_size=1))
    # The loader ran without any autocast here; in `evaluate` it ran beside the network's.
    scores = [stream(batch)[0].scores for batch in samples]
    for batch, expected in zip(samples, scores, strict=True):
        found = sorted((b["detection_score"] for b in rounded[batch[0].sample_token]), reverse=True)
        assert set(found) <= set(expected.double().tolist())


def test_the_last_checkpoint_is_evaluated_only_when_asked_for() -> None:
    cfg = DictConfig({"train": {"init_checkpoint": "named.pth", "output_dir": "run"}})
    folder = SimpleNamespace(has_checkpoint=lambda: True)
    assert evaluation._weights(cfg, folder, resume=False) == "named.pth"


def test_the_evaluation_without_memory_has_no_tracks_whatever_the_order(
    recipe: DictConfig, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = copy.deepcopy(recipe)
    recipe.dataloader.evaluator = list(recipe.dataloader.evaluator)[::-1]
    ran: list[str] = []

    def note(run: object, loader: object, evaluators: list[Any]) -> dict[str, Any]:
        ran.extend(evaluator.name for evaluator in evaluators)
        return {}

    monkeypatch.setattr(evaluation, "inference_on_dataset", note)
    evaluate(recipe, model, memory=False, main_only=True)
    assert ran == ["bbox3d"]
    recipe.dataloader.evaluator[1].output_dir = "of detections"
    assert results_folder(recipe) == "of detections"


@pytest.mark.parametrize(("at_test", "expected"), [(True, [True, False]), (False, [False])])
def test_a_run_without_memory_is_not_repeated_for_comparison(
    at_test: bool, expected: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[bool] = []

    def evaluate_once(
        cfg: DictConfig, model: object, folder: str = "", memory: bool = True, **_: bool
    ) -> dict:
        runs.append(memory)
        return {"bbox3d": {}}

    monkeypatch.setattr(evaluation, "evaluate", evaluate_once)
    monkeypatch.setattr(evaluation, "_write_report", lambda *_: None)
    report, train = {"memory_off": True}, {"output_dir": "run"}
    cfg = DictConfig({"report": report, "train": train, "model": {"memory_at_test": at_test}})
    evaluation.evaluate_and_report(cfg, torch.nn.Identity())
    assert runs == expected
