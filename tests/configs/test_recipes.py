"""Every recipe loads, is short, survives a round trip through YAML, and builds its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig, OmegaConf

from streampetr_vit.engine import load_config
from streampetr_vit.engine.config import call
from streampetr_vit.solver import layer_decay_groups

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
    assert_every_parameter_trains_once(models[0], call(cfg.optimizer.params, model=models[0]))
    for split in ("train", "test"):
        mapper = instantiate(again.dataloader[split].mapper)
        height, width = mapper.image_aug.final_size
        assert height % 16 == 0 and width % 16 == 0
    net = again.model.backbone.net
    assert net.img_size == min(height, width) == 16 * net.global_window_size


def assert_every_parameter_trains_once(model: torch.nn.Module, groups: list[dict]) -> None:
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(map(id, model.parameters()))


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
    assert cfg.dataloader.train.mapper.boxes2d
    assert cfg.train.init_checkpoint == "weights/eva02_L_coco_det_sys_o365.pth"


@pytest.mark.parametrize("path", [p for p in RECIPES if "eva02_l" in p.stem], ids=lambda p: p.stem)
def test_vit_l_recipes_have_a_published_optimiser(path: Path) -> None:
    cfg = load_config(str(path))
    optimizer, params = cfg.optimizer, cfg.optimizer.params
    with torch.device("meta"):
        model = instantiate(cfg.model)
    rates = rates_by_part(model, call(params, model=model))
    assert (tuple(optimizer.betas), optimizer.fused) == ((0.9, 0.999), True)
    # The published batch, so that nothing is scaled.
    windows = 8 * cfg.dataloader.train.lanes_per_rank
    assert cfg.train.auto_scale and cfg.schedule.lr_batch == windows
    if path.stem.endswith("layer_decay"):
        assert (optimizer.lr, optimizer.weight_decay) == (1e-4, 1e-7)
        assert (params.decay_rate, params.head_factor, params.num_layers) == (0.9, 4.0, 24)
        assert rates["head"] == {(4e-4, 1e-7), (4e-4, 0.0)}
        assert len(rates["backbone"]) == 50
    else:
        assert optimizer.lr == {8: 2e-4, 16: 4e-4}[windows]
        assert (optimizer.weight_decay, params.backbone_lr_factor) == (0.01, 0.1)
        assert rates.pop("backbone") == {(optimizer.lr * 0.1, 0.01)}
        assert all(rate == {(optimizer.lr, 0.01)} for rate in rates.values())


def rates_by_part(model: torch.nn.Module, groups: list[dict]) -> dict[str, set]:
    """(lr, weight decay) of the parameters of each top-level module."""
    parts: dict[str, set] = {}
    by_id = {
        id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        parts.setdefault(name.split(".")[0], set()).add(by_id[id(parameter)])
    return parts


@pytest.mark.parametrize("detector", ["streampetr", "repdetr3d"])
def test_recipes_with_rays_differ_in_nothing_else(detector: str) -> None:
    """So the same checkpoints fit, and a comparison of the two compares the rays."""
    plain, with_rays = (
        flat(load_config(str(CONFIGS / f"{detector}{name}_eva02_l_800x320_24ep.py")))
        for name in ("", "_raydn")
    )
    assert set(plain) == set(with_rays)
    differing = {key for key in plain if plain[key] != with_rays[key]}
    assert differing == {"model.denoising.ray.groups", "report.title", "train.output_dir"}
    ray = {key.rpartition(".")[2]: v for key, v in with_rays.items() if ".denoising.ray." in key}
    published = dict(
        groups=1, num_points=5, alpha=8.0, beta=2.0, radius=3.0, max_positive_step=0.75
    )
    clean = dict(keep_sign=False, drop_unseen=False, min_depth_m=None)
    assert ray.pop("_target_").endswith("RayDenoising") and ray == published | clean


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Path -> value of everything in a configuration that is neither a dict nor a list."""
    if isinstance(value, DictConfig):
        value = OmegaConf.to_container(value, resolve=False)
    if not isinstance(value, (dict, list)):
        return {path: value}
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    found: dict[str, Any] = {}
    for key, entry in entries:
        found |= flat(entry, f"{path}.{key}".lstrip("."))
    return found


@pytest.mark.parametrize("size", ["800x320", "1600x640", "1600x800"])
@pytest.mark.parametrize("suffix", ["", "_layer_decay"])
def test_published_sizes_with_both_optimisers(size: str, suffix: str) -> None:
    path = CONFIGS / f"streampetr_eva02_l_{size}_24ep{suffix}.py"
    cfg = load_config(str(path))
    width, height = map(int, size.split("x"))
    assert list(cfg.dataloader.train.mapper.image_aug.final_size) == [height, width]
    for said in ("Aims at:", "Iterations:", "Memory"):
        assert said in path.read_text()
    assert cfg.train.output_dir == f"output/{path.stem}" and size in cfg.report.title


def test_the_two_optimisers_differ_in_nothing_else() -> None:
    names = ("streampetr_eva02_l_1600x800_24ep", "streampetr_eva02_l_1600x800_24ep_layer_decay")
    plain, decayed = (load_config(str(CONFIGS / f"{name}.py")) for name in names)
    for cfg in (plain, decayed):
        del cfg["optimizer"], cfg.train["output_dir"], cfg.report["title"]
    assert plain == decayed


@pytest.mark.parametrize(
    ("scales", "sizes"),
    [
        ([4, 2, 1, 0.5], [(16, 40), (8, 20), (4, 10), (2, 5)]),
        ([4, 2, 1, 0.5, 0.25], [(16, 40), (8, 20), (4, 10), (2, 5), (1, 2)]),
    ],
    ids=["four levels", "five levels"],
)
def test_both_pyramids_build_and_run(scales: list[float], sizes: list[tuple[int, int]]) -> None:
    """As configured for the ViT-L, but for the width and depth of the ViT and the picture."""
    described = LazyConfig.load(str(CONFIGS / "models" / "eva02_vit_l.py")).pyramid_backbone
    described.net.update(img_size=64, window_size=3, global_window_size=4)
    described.net.update(embed_dim=32, depth=3, num_heads=2, window_block_indexes=[0, 1])
    described.scale_factors = scales
    backbone = instantiate(described)
    levels = backbone(torch.rand(2, 3, 64, 160))
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        f"p{2 + i}": (2, 256, *size) for i, size in enumerate(sizes)
    }
    sum(level.square().mean() for level in levels.values()).backward()
    assert all(p.grad is not None for p in backbone.parameters())
    groups = layer_decay_groups(torch.nn.ModuleDict({"backbone": backbone}), 1e-4, 0, num_layers=3)
    assert sum(len(group["params"]) for group in groups) == len(list(backbone.parameters()))


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


def test_repdetr3d_has_the_released_models_head() -> None:
    cfg = load_config(str(CONFIGS / "repdetr3d_eva02_l_800x320_24ep.py"))
    with torch.device("meta"):
        model = instantiate(cfg.model)
    constants = 10 + 10 + 6 + 3 * 256  # counted there; the start points are a buffer of ours
    assert sum(p.numel() for p in model.head.parameters()) == 7_043_172 - constants
    assert model.in_feature == ("p2", "p3", "p4", "p5")
    assert cfg.optimizer.lr == 4e-4 and cfg.optimizer.params.backbone_lr_factor == 0.1


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
