"""Every recipe loads, is short, survives a round trip through YAML, and builds its model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from streampetr_vit.engine import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*.py"))
VIT_L_PARAMETERS = 303_388_608
HEAD_PARAMETERS = 11_187_872  # the published head, on 256 channels


def test_there_are_recipes() -> None:
    assert {"quickstart", "streampetr_eva02_l_800x320_24ep"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_builds_on_the_meta_device_also_from_its_yaml(path: Path, tmp_path: Path) -> None:
    cfg = load_config(str(path))
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = load_config(str(tmp_path / "config.yaml"))
    with torch.device("meta"):
        models = [instantiate(c.model) for c in (cfg, again)]
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in models]
    assert shapes[0] == shapes[1]
    for split in ("train", "test"):
        mapper = instantiate(again.dataloader[split].mapper)
        height, width = mapper.image_aug.final_size
        assert height % 16 == 0 and width % 16 == 0
    net = again.model.backbone.net
    assert net.img_size == min(height, width) == 16 * net.global_window_size


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_at_most_forty_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if p.stem.startswith("streampetr_eva02_l")], ids=lambda p: p.stem
)
def test_vit_l_recipes_have_the_published_model(path: Path) -> None:
    cfg = load_config(str(path))
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert sum(p.numel() for p in model.backbone.parameters()) == VIT_L_PARAMETERS
    # Without a neck the first layers of the heads are wider.
    wider = 0 if model.neck else 1024 - 256
    assert sum(p.numel() for p in model.head.parameters()) == HEAD_PARAMETERS + 256 * wider
    assert model.image_head.class_tower[0].in_channels == 256 + wider
    assert all(k.startswith("net.") for k in model.backbone.state_dict())
    assert model.head.prior_sigma_cells == 0 and model.token_ratio == 1
    assert model.denoising.groups == 10 and model.grid_mask.probability == 0.7
    assert cfg.model.backbone.net.drop_path_rate == 0.3
    # Published rates by the number of windows in a step.
    windows = 8 * cfg.dataloader.train.lanes_per_rank
    assert cfg.optimizer.lr == {8: 2e-4, 16: 4e-4}[windows]
    assert cfg.optimizer.params.backbone_lr_factor == 0.1
    assert cfg.dataloader.train.mapper.boxes2d


def test_single_frame_recipes_have_no_memory() -> None:
    focal, plain = (
        load_config(str(CONFIGS / f"{name}_eva02_l_800x320_24ep.py"))
        for name in ("focal_petr", "petr")
    )
    for cfg in (focal, plain):
        with torch.device("meta"):
            model = instantiate(cfg.model)
        parts = {name.split(".")[0] for name, value in model.head.named_parameters()}
        assert model.head.memory_length == 0 and model.head.num_queries == 900
        assert "start_points" not in parts and model.head.alignment.time_embed is None
        assert (model.image_head is None) == (cfg is plain)
        assert cfg.dataloader.train.mapper.boxes2d == (cfg is focal)
        assert cfg.dataloader.train.sequence_length == 1


def test_recipe_defaults_do_not_leak_into_each_other() -> None:
    """Recipes edit what they import; loading one must not change another."""
    path = str(CONFIGS / "streampetr_eva02_l_800x320_24ep.py")
    before = load_config(path)
    for other in RECIPES:
        load_config(str(other))
    assert load_config(path) == before


def test_the_tiny_model_has_local_and_global_windows() -> None:
    net = load_config(str(CONFIGS / "quickstart.py")).model.backbone.net
    assert 0 < len(net.window_block_indexes) < net.depth
    assert net.window_size != net.global_window_size
