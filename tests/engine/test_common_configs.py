"""The shared defaults fit together, and can be written down."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from torch import nn

from streampetr_vit.engine.config import ConfigError, call, check_override
from streampetr_vit.engine.recipe import Recipe, build_optimizer

CONFIGS = Path(__file__).parents[2] / "configs"


def compose() -> DictConfig:
    sections = DictConfig({}, flags={"allow_objects": True})
    for part in ("train", "optim", "schedule", "nuscenes"):
        sections.update(LazyConfig.load(str(CONFIGS / "common" / f"{part}.py")))
    sections.model = LazyConfig.load(str(CONFIGS / "models" / "streampetr_vit_l.py")).model
    return sections


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 3), nn.Linear(3, 1)


def test_they_can_be_saved_as_yaml_and_read_again(tmp_path: Path) -> None:
    cfg = compose()
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]  # no pickle
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert again.dataloader.evaluator.output_dir == "./output/inference"
    assert again.optimizer.params.lr == again.optimizer.lr == 4e-4


def test_one_edit_reaches_all_that_depends_on_it() -> None:
    cfg = compose()
    cfg.dataloader.train.mapper.image_aug.final_size = [160, 400]
    cfg.dataloader.test.dataset = {"root": "x", "version": "v1.0-mine", "split": "val"}
    cfg.train.update(output_dir="out", seed=3)
    cfg.model.head.point_cloud_range = [-25.6, -25.6, -5, 25.6, 25.6, 3]
    test_mapper = instantiate(cfg.dataloader.test.mapper)
    train_mapper = instantiate(cfg.dataloader.train.mapper)
    assert test_mapper.image_aug.final_size == train_mapper.image_aug.final_size == (160, 400)
    assert train_mapper.point_cloud_range[0] == -25.6
    assert train_mapper.training and not test_mapper.training
    assert cfg.dataloader.train.seed == 3
    assert cfg.dataloader.evaluator.dataset.version == "v1.0-mine"
    assert cfg.dataloader.evaluator.output_dir == "out/inference"


@pytest.mark.parametrize(
    "override",
    ["dataloader.train.mapper.image_aug.flip_prob=0", "dataloader.train.lanes=1", "model.heads=1"],
)
def test_wrong_keys_deep_inside_are_errors(override: str) -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        check_override(compose(), override)


def test_loader_arguments_that_only_the_signature_names_can_be_overridden() -> None:
    check_override(compose(), "dataloader.train.sequence_length=10")
    check_override(compose(), "dataloader.train.mapper.cache_images=True")


def test_the_published_recipe_in_numbers() -> None:
    cfg = compose()
    recipe = Recipe.derive(28130, cfg.dataloader.train.lanes_per_rank, 8, cfg.schedule.epochs)
    assert (recipe.epoch_iters, recipe.max_iter, recipe.global_batch) == (1758, 42192, 16)
    # The same passes over the data whatever the number of processes.
    alone = Recipe.derive(28130, 2, 1, cfg.schedule.epochs)
    assert alone.max_iter == 24 * 14065
    model = Detector()
    text = recipe.describe(cfg, model, build_optimizer(cfg.optimizer, model))
    assert "samples        28130" in text
    assert "batch          16 frames = 2 lanes x 8 processes" in text
    assert "epochs         24 of 1758 iterations" in text
    assert "learning rates backbone 4e-05, head 0.0004\n" in text
    assert "lr scale       x1, train.auto_scale is off" in text
    assert "weight decay   0.01 on 0.00 M parameters" in text
    assert "warm-up        500 iterations from 0.333, cosine to 0.001" in text


def test_optimizer_state_holds_plain_values_only(tmp_path: Path) -> None:
    # Lists of a configuration would make checkpoints unreadable with weights_only=True.
    cfg = compose()
    # NAdam keeps what it is given, AdamW makes a tuple of it.
    cfg.optimizer._target_ = torch.optim.NAdam
    del cfg.optimizer["fused"]
    optimizer = build_optimizer(cfg.optimizer, Detector())
    assert type(optimizer.param_groups[0]["betas"]) is tuple
    torch.save(optimizer.state_dict(), tmp_path / "state.pth")
    assert torch.load(tmp_path / "state.pth", weights_only=True)["param_groups"]
    assert call(cfg.optimizer.params, model=Detector())[0]["lr"] == pytest.approx(4e-5)


def test_training_of_no_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 iterations: raise schedule.epochs"):
        Recipe.derive(100, 1, 1, epochs=0.001)
