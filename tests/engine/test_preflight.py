"""What the end of a run needs is checked before its first step."""

from __future__ import annotations

import shutil
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall
from omegaconf import DictConfig
from toy_task import ToyDetector, ToyEvaluator

from streampetr_vit.engine import build_model, evaluate_only, load_config, preflight, train
from streampetr_vit.engine.config import call
from streampetr_vit.engine.preflight import (
    check_checkpoint_space,
    check_evaluation,
    checkpoint_bytes,
)
from streampetr_vit.errors import ConfigError, InputError, MissingFileError, OutputError
from streampetr_vit.modeling.ops import precision
from streampetr_vit.solver import WeightAverage

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(Path(__file__).with_name("toy_config.py"))
Usage = namedtuple("Usage", "total used free")


def toy(output: Path, *words: str) -> DictConfig:
    return load_config(CONFIG, ["train.max_iter=3", *words, f"train.output_dir={output}"])


@pytest.fixture
def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(*_: object) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(ToyDetector, "losses", losses)


def fails(cfg: DictConfig, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        train(cfg)
    assert not list(Path(cfg.train.output_dir).glob("*.pth"))


def test_what_the_evaluator_finds_ends_the_run_before_its_first_step(
    tmp_path: Path, no_step: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def check(self: ToyEvaluator, tokens: list[str], max_detections: int | None) -> None:
        seen.append((tokens, max_detections))
        raise InputError("the test set is not there")

    monkeypatch.setattr(ToyEvaluator, "check", check, raising=False)
    fails(toy(tmp_path), InputError, "the test set is not there")
    assert seen == [([], None)]  # the toy's loader has no tokens, its head no number of boxes


def test_a_test_loader_that_cannot_be_built(
    tmp_path: Path, no_step: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object, **__: object) -> None:
        raise MissingFileError("no such test set")

    cfg = toy(tmp_path)
    cfg.dataloader.test._target_ = build
    fails(cfg, MissingFileError, "no such test set")


def test_without_an_evaluator_nothing_of_evaluation_is_checked(tmp_path: Path) -> None:
    cfg = toy(tmp_path, "dataloader.evaluator=null")
    cfg.dataloader.test = LazyCall(_no_test_set)()
    assert train(cfg) == {}


def _no_test_set(**_: object) -> None:
    raise AssertionError("the test set was opened")


def test_folders_that_cannot_be_written(tmp_path: Path, no_step: None) -> None:
    (tmp_path / "file").write_text("")
    message = r"cannot write '.*file/.*': Not a directory; check the folder and its rights"
    fails(toy(tmp_path / "file" / "run"), OutputError, message)
    words = [f"dataloader.evaluator.output_dir={tmp_path / 'file' / 'results'}"]
    fails(toy(tmp_path / "run", *words), OutputError, message)


def test_a_disk_that_is_too_small_for_the_checkpoints(
    tmp_path: Path, no_step: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1000, 0, 1000))
    message = r"has 1e-06 GB free, and the checkpoints of this run \(2 files of .* may need"
    fails(toy(tmp_path), OutputError, message)


def test_how_many_checkpoints_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that stay, model_final.pth, and the one that is being written."""
    free = 4999
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(9999, 0, free))
    with pytest.raises(OutputError, match="5 files of 1e-06 GB: 3 by .* may need 5e-06 GB"):
        check_checkpoint_space(tmp_path, size=1000, numbered=3)
    check_checkpoint_space(tmp_path, size=1000, numbered=2)
    with pytest.raises(OutputError, match="5 files .*, model_final.pth, model_best.pth, one being"):
        check_checkpoint_space(tmp_path, 1000, 2, ["model_final", "model_best"])
    # What is there already will be replaced.
    for name in ("model_0000001.pth", "model_final.pth"):
        (tmp_path / name).write_bytes(bytes(1000))
    check_checkpoint_space(tmp_path, size=1000, numbered=3)
    free = 999
    with pytest.raises(
        OutputError, match="2 files of .* may need 1e-06 GB"
    ):  # one is always written anew
        check_checkpoint_space(tmp_path, size=1000, numbered=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 0))  # unknown
    check_checkpoint_space(tmp_path, size=1000, numbered=3)


@pytest.mark.parametrize(
    "kind", [torch.optim.AdamW, torch.optim.SGD, lambda p: torch.optim.SGD(p, momentum=0.9)]
)
def test_the_size_of_a_checkpoint_is_foreseen(tmp_path: Path, kind: Any) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(300, 300) for _ in range(4)))
    optimizer = kind(model.parameters())
    foreseen = checkpoint_bytes(model, optimizer)
    with_average = checkpoint_bytes(model, optimizer, averaged=True)
    model(torch.ones(2, 300)).sum().backward()
    optimizer.step()
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "file.pth")
    assert foreseen == pytest.approx((tmp_path / "file.pth").stat().st_size, rel=0.02)
    torch.save({**content, "ema": WeightAverage(model).state_dict()}, tmp_path / "file.pth")
    assert with_average == pytest.approx((tmp_path / "file.pth").stat().st_size, rel=0.02)


def test_tensorboard_that_cannot_be_imported(
    tmp_path: Path, no_step: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    fails(toy(tmp_path), InputError, "need tensorboard.*pip install tensorboard")


def test_half_checkpoints_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "model_0000009.pth.0123456789ab.tmp"
    left.write_bytes(b"half")
    other = tmp_path / "model_0000009.pth.txt"
    other.write_bytes(b"of the user")
    train(toy(tmp_path))
    assert not left.exists() and other.exists()


@pytest.fixture
def recipe(tiny_nuscenes: Path, tmp_path: Path) -> DictConfig:
    cfg = load_config(str(ROOT / "configs" / "quickstart.py"), ["train.device=cpu"])
    for part, split in (("train", "mini_train"), ("test", "mini_val")):
        cfg.dataloader[part].dataset = dict(
            root=str(tiny_nuscenes), version="v1.0-mini", split=split
        )
    cfg.train.output_dir = str(tmp_path / "run")
    return cfg


def test_the_real_evaluation_is_checked(recipe: DictConfig, tmp_path: Path) -> None:
    model = build_model(recipe)
    check_evaluation(recipe, model)
    recipe.dataloader.test.dataset = "nuscenes_mini_vall"
    with pytest.raises(InputError, match="unknown data set 'nuscenes_mini_vall'"):
        train(recipe)
    assert not list(tmp_path.rglob("*.pth"))


def test_more_boxes_than_the_devkit_takes(recipe: DictConfig) -> None:
    recipe.model.head.max_detections = 600
    weights = f"{recipe.train.output_dir}.pth"
    torch.save({"model": {}}, weights)
    recipe.train.init_checkpoint = weights
    evaluator = call(recipe.dataloader.evaluator[0])
    evaluator.check([], 500)
    with pytest.raises(InputError, match="max_detections=501"):
        evaluator.check([], 501)
    for work in (train, evaluate_only):
        with pytest.raises(InputError, match="model.head.max_detections=600: .* at most 500"):
            work(recipe)


def test_pictures_of_the_test_set_that_are_missing(
    recipe: DictConfig, tiny_nuscenes: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tables only"
    shutil.copytree(tiny_nuscenes / "v1.0-mini", root / "v1.0-mini")
    shutil.copytree(tiny_nuscenes / "maps", root / "maps")
    recipe.dataloader.test.dataset.root = str(root)
    with pytest.raises(RuntimeError, match="picture .*tables only.* cannot be read"):
        train(recipe)


def test_an_evaluator_of_other_samples_than_the_loaders(recipe: DictConfig) -> None:
    recipe.dataloader.evaluator[0].dataset = recipe.dataloader.train.dataset
    with pytest.raises(InputError, match=r"6 of 6 samples .* run the test loader over the whole"):
        train(recipe)


def test_ids_of_the_memory_in_scenes_that_are_cut(
    recipe: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(recipe)
    recipe.dataloader.test.sharding = "reference"
    preflight._check_evaluators(recipe, model, [])  # one process has whole scenes
    monkeypatch.setattr(preflight.comm, "get_world_size", lambda: 2)
    with pytest.raises(InputError, match=r"cuts scenes.*sharding=scene.*tracker=\"greedy\""):
        preflight._check_evaluators(recipe, model, [])
    recipe.dataloader.evaluator[1].tracker = "greedy"
    preflight._check_evaluators(recipe, model, [])
    recipe.dataloader.evaluator[1].tracker = "lineage"
    recipe.dataloader.test.sharding = "scene"
    preflight._check_evaluators(recipe, model, [])


def test_a_precision_of_evaluation_that_is_unknown(tmp_path: Path, no_step: None) -> None:
    cfg = toy(tmp_path)
    cfg.train.eval_precision = "fp8"
    fails(cfg, ConfigError, "train.eval_precision='fp8' is not allowed")


def test_a_precision_of_evaluation_that_the_gpu_lacks(
    tmp_path: Path, no_step: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first evaluation would fail after hours."""
    monkeypatch.setattr(precision, "half_precision_of", lambda _: "fp16")
    message = "precision 'bf16': this GPU has no bfloat16"
    fails(toy(tmp_path, "train.eval_precision=bf16"), InputError, message)


@pytest.mark.parametrize(("world_size", "tokens"), [(2, 6), (4, 8)])
def test_a_loader_names_the_samples_of_its_rank(
    recipe: DictConfig, world_size: int, tokens: int
) -> None:
    recipe.dataloader.test.sharding = "reference"  # equal blocks, filled up with the first frames
    loaders = [
        call(recipe.dataloader.test, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    named = [token for loader in loaders for token in loader.tokens]
    given = [batch[0].sample_token for loader in loaders for batch in loader]
    assert named == given and len(named) == tokens and len(set(named)) == 6
    assert loaders[1].first_sample().sample_token == loaders[1].tokens[0]


def test_a_report_of_tracks_alone(recipe: DictConfig) -> None:
    recipe.dataloader.evaluator = [recipe.dataloader.evaluator[1]]
    with pytest.raises(InputError, match="evaluators of tracks only, and the report shows"):
        train(recipe)
