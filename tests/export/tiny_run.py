"""What a training of a small detector leaves, for tests of the export tool."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from streampetr_vit.checkpoint.loading import SafeCheckpointer
from streampetr_vit.engine import build_model, load_config
from streampetr_vit.engine.run_folder import save_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Of the lidar on the vehicle: turned by no multiple of 90 degrees.
REFERENCE = [0.9, 0.1, 1.8, 0.6, 0.0, 0.0, -0.8]


def small_recipe(name: str = "quickstart", **model: object) -> DictConfig:
    """A quick start's recipe with one layer of everything; `model` changes the detector."""
    cfg = load_config(str(CONFIGS / f"{name}.py"), ["train.device=cpu"])
    net, head = cfg.model.backbone.net, cfg.model.head
    net.depth, net.window_block_indexes, net.mlp_ratio = 1, [], 1.0
    head.decoder.num_layers, head.decoder.feedforward_dim = 1, 32
    head.num_queries, head.num_propagated, head.num_remembered, head.memory_length = 12, 4, 4, 8
    for key, value in model.items():
        cfg.model[key] = value
    return cfg


def write_run(folder: Path, cfg: DictConfig, seed: int = 0) -> Path:
    """Random weights with scores that differ, and others as their moving average."""
    torch.manual_seed(seed)
    model = build_model(cfg)
    with torch.no_grad():  # classes far from each other: few scores tie
        model.head.class_branch[-1].weight.mul_(5)
    model.reference_to_vehicle, model.frame_period_s = REFERENCE, 0.4
    average = {name: value * 1.01 for name, value in model.state_dict().items()}
    folder.mkdir(parents=True)
    SafeCheckpointer(model, str(folder)).save("model_final", ema=average)
    save_config(cfg, str(folder))
    return folder
