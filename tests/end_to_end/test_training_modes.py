"""The modes of training beside streaming, with the real loader and loop, a few steps each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from streampetr_vit.checkpoint.files import read_checkpoint
from streampetr_vit.data.build import build_window_loader
from streampetr_vit.data.nuscenes import open_dataset
from streampetr_vit.engine import load_config, setup, train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(tiny_nuscenes: Path, tmp_path: Path) -> DictConfig:
    """The quick start on the tiny data set, without its evaluation."""
    cfg = load_config(str(ROOT / "configs" / "quickstart.py"))
    dataset = dict(root=str(tiny_nuscenes), version="v1.0-mini", split="mini_train")
    cfg.dataloader.train.dataset = cfg.dataloader.test.dataset = dataset
    del cfg.dataloader["evaluator"]
    cfg.train.update(max_iter=2, max_seconds=None, log_period=1, device="cpu")
    cfg.train.output_dir = str(tmp_path / "output")
    return cfg


def last_losses(cfg: DictConfig) -> dict[str, float]:
    """Scalars of the last step."""
    lines = (Path(cfg.train.output_dir) / "metrics.json").read_text().splitlines()
    return json.loads(lines[-1])


def test_sliding_windows_train_and_resume(recipe: DictConfig) -> None:
    recipe.dataloader.train = L(build_window_loader)(
        dataset=recipe.dataloader.train.dataset,
        mapper=recipe.dataloader.train.mapper,
        window_length=3,
        lanes_per_rank=2,
        num_workers=0,
        seed=0,
    )
    recipe.model.window.num_frame_losses = recipe.model.window.num_frame_head_grads = 2
    setup(recipe)
    train(recipe)
    settings = read_checkpoint(f"{recipe.train.output_dir}/model_final.pth")["settings"]
    records = open_dataset(recipe.dataloader.train.dataset)
    assert settings["reference_to_vehicle"] == records.lidar_to_ego[0].tolist()
    assert settings["frame_period_s"] == pytest.approx(0.5, abs=0.01)
    losses = last_losses(recipe)
    assert {"loss_cls", "t-1.loss_cls", "t-1.enc_loss_cls", "t-1.d0.dn_loss_bbox"} <= set(losses)
    recipe.train.max_iter = 3
    train(recipe, resume=True)
    assert last_losses(recipe)["iteration"] == 2


def test_single_frames_train(recipe: DictConfig) -> None:
    head = recipe.model.head
    head.num_propagated = head.num_remembered = head.memory_length = 0
    recipe.dataloader.train.sequence_split, recipe.dataloader.train.sequence_length = 1, 1
    setup(recipe)
    train(recipe)
    assert last_losses(recipe)["total_loss"] > 0


def test_training_without_the_2d_head(recipe: DictConfig) -> None:
    recipe.model.image_head = recipe.model.criterion.image = recipe.model.grid_mask = None
    recipe.dataloader.train.mapper.boxes2d = False
    setup(recipe)
    train(recipe)
    losses = last_losses(recipe)
    assert "loss_cls" in losses and "enc_loss_cls" not in losses
