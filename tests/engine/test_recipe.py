"""What a run makes of the data set and the processes at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from streampetr_vit.engine import load_config, train
from streampetr_vit.engine.recipe import Recipe, build_optimizer
from streampetr_vit.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TOY = str(Path(__file__).with_name("toy_config.py"))
LAYER_DECAY = str(CONFIGS / "streampetr_eva02_l_800x320_24ep_layer_decay.py")


@pytest.mark.parametrize(
    ("processes", "lanes", "iterations", "factor"),
    [
        (8, 1, 24 * 3516, 0.5),
        (8, 2, 42192, 1.0),
        (16, 2, 24 * 879, 1.5),
        (1, 2, 24 * 14065, 0.125),
        (1, 1, 24 * 28130, 0.0625),
    ],
)
def test_auto_scale_follows_processes_and_lanes(
    processes: int, lanes: int, iterations: int, factor: float
) -> None:
    cfg = load_config(LAYER_DECAY, [f"dataloader.train.lanes_per_rank={lanes}"])
    recipe = Recipe.of(cfg, 28130, processes)
    assert (recipe.max_iter, recipe.lr_factor) == (iterations, pytest.approx(factor))
    cfg.train.auto_scale = False
    unscaled = Recipe.of(cfg, 28130, processes)
    assert (unscaled.max_iter, unscaled.lr_factor) == (iterations, 1.0)


def test_the_log_says_where_nothing_is_published() -> None:
    recipe = Recipe.derive(28130, 4, 16, 24, lr_batch=16)
    assert recipe._describe_scale().endswith("; no rate is published beyond 32")
    assert recipe.lr_factor == pytest.approx(1.5)


def test_windows_have_a_batch_of_their_own() -> None:
    cfg = load_config(str(CONFIGS / "streampetr_eva02_l_800x320_window8_24ep.py"))
    assert Recipe.of(cfg, 28130, 8).lr_factor == 1
    assert Recipe.of(cfg, 28130, 16).lr_factor == 2
    scale = Recipe.of(cfg, 28130, 16)._describe_scale()
    assert scale.startswith("x2: 16 windows per step, optimizer.lr is for 8")


def test_a_rate_for_no_batch_cannot_be_scaled() -> None:
    cfg = load_config(LAYER_DECAY, ["schedule.lr_batch=null"])
    with pytest.raises(InputError, match=r"train.auto_scale=True needs schedule.lr_batch"):
        Recipe.of(cfg, 28130, 8)
    cfg.train.auto_scale = False
    assert Recipe.of(cfg, 28130, 8).lr_factor == 1


def test_the_block_of_the_layer_decay_recipe() -> None:
    cfg = load_config(LAYER_DECAY)
    with torch.device("meta"):
        model = instantiate(cfg.model)
    recipe = Recipe.of(cfg, 28130, 4)
    text = recipe.describe(cfg, model, build_optimizer(cfg.optimizer, model, recipe.lr_factor))
    rates = "backbone 3.589e-06 to 4.5e-05, head 0.0002, image_head 0.0002"
    assert f"learning rates {rates}\n" in text
    assert "lr scale       x0.5: 8 frames per step, optimizer.lr is for 16\n" in text
    assert "weight decay   1e-07 on 318.99 M parameters, 0 on 0.51 M parameters\n" in text
    assert "epochs         24 of 3516 iterations\n  iterations     84384\n" in text
    assert "kernels        attention auto, sdpa; fused AdamW; torch " in text
    assert "recomputed     backbone.net, head.decoder (activation checkpointing)" in text


def test_the_factor_acts_on_every_group_and_on_the_default() -> None:
    cfg = load_config(LAYER_DECAY)
    cfg.optimizer.params.num_layers = 1
    model = torch.nn.ModuleDict({"backbone": Blocks(), "head": torch.nn.Linear(2, 2)})
    plain, half = (build_optimizer(cfg.optimizer, model, factor) for factor in (1.0, 0.5))
    for before, after in zip(plain.param_groups, half.param_groups, strict=True):
        assert after["lr"] == before["lr"] * 0.5
        assert after["weight_decay"] == before["weight_decay"]
    assert half.defaults["lr"] == 0.5 * plain.defaults["lr"] == 0.5e-4


class Blocks(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2)])


def test_more_iterations_than_the_curves_can_count_are_refused() -> None:
    with pytest.raises(InputError, match="more than 2147483647: lower schedule.epochs"):
        Recipe.derive(6, 1, 1, epochs=1e30)


@pytest.mark.parametrize(("max_iter", "is_short"), [(5, True), (4, True), (6, False)])
def test_a_run_that_ends_inside_its_warm_up_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, max_iter: int, is_short: bool
) -> None:
    words = [f"train.max_iter={max_iter}", "dataloader.evaluator=null"]
    train(load_config(TOY, [*words, f"train.output_dir={tmp_path}"]))  # warms up for 5 iterations
    found = [r.getMessage() for r in caplog.records if "ends inside its warm-up" in r.getMessage()]
    assert len(found) == is_short
    for text in found:
        assert f"the run has {max_iter} iterations (train.max_iter)" in text
        assert "schedule.warmup_iters=5. The learning rate starts at 0.333 of optimizer.lr" in text


def test_epochs_that_are_shorter_than_the_warm_up_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cfg = load_config(TOY, ["schedule.warmup_iters=12"])
    Recipe.of(cfg, 48, 1).warn_of_warmup(cfg.schedule)  # twice 12 iterations
    assert not caplog.records
    Recipe.of(cfg, 24, 1).warn_of_warmup(cfg.schedule)
    assert "12 iterations (schedule.epochs=2) and ends" in caplog.text
