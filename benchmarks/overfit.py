#!/usr/bin/env python
"""Proof that the losses train the whole detector: a few scenes, learned by heart.

    python benchmarks/overfit.py --minutes 60 [key=value ...]
    python benchmarks/overfit.py --minutes 8 --dataset path/to/nuscenes v1.0-mini mini_val

Trains configs/quickstart.py on two scenes of its data, or on a split of any nuScenes-format set,
and evaluates on the same. The status is 1 if mAP stays at 0.8 or below; of another set, where
classes may be absent, the best AP of a class. OUTPUT/report.html has the curves. docs/train.md has
the first as a command, and its result.
"""

import argparse
import sys
from pathlib import Path

from omegaconf import DictConfig

from streampetr_vit.command_line import above_0
from streampetr_vit.data.nuscenes.catalog import open_dataset
from streampetr_vit.engine import load_config, setup, train
from streampetr_vit.engine.config import call
from streampetr_vit.errors import one_line_errors
from synthetic_nuscenes import PRESETS, SyntheticError, generate

ENOUGH = 0.8


def use_two_scenes(cfg: DictConfig) -> None:
    """Trains and evaluates on the first two scenes of the recipe's own data."""
    preset = PRESETS[cfg.synthetic.preset]
    generate(preset, Path(cfg.dataloader.train.dataset.root))
    for loader in ("train", "test"):
        cfg.dataloader[loader].dataset.split = preset.scene_names()[0][:2]


def use_split(cfg: DictConfig, root: str, version: str, split: str) -> None:
    """Trains and evaluates on a split, with its pictures at the one scale that fills the input."""
    dataset = dict(root=root, version=version, split=split)
    cfg.dataloader.train.dataset = cfg.dataloader.test.dataset = dataset
    sizes = open_dataset(dataset, call(cfg.dataset_spec)).image_sizes  # (frames, cameras, 2)
    mapper = cfg.dataloader.train.mapper
    scale = call(mapper.image_aug).fixed(tuple(sizes[0, 0].tolist())).scale
    mapper.image_aug.resize_range = [scale, scale]


@one_line_errors(SyntheticError)
def main() -> None:
    """Trains and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=above_0, default=60.0, help="of training")
    parser.add_argument("--dataset", nargs=3, metavar=("ROOT", "VERSION", "SPLIT"))
    parser.add_argument("opts", nargs="*", help="overrides of the recipe")
    args = parser.parse_args()
    options = [f"train.max_seconds={60 * args.minutes}", "train.max_iter=1000000"]
    options += ["train.eval_period=2000", "train.output_dir=output/overfit"]
    options += ["report.memory_off=False", *args.opts]
    recipe = Path(__file__).resolve().parents[1] / "configs" / "quickstart.py"
    cfg = load_config(str(recipe), options)
    if args.dataset:
        use_split(cfg, *args.dataset)
    else:
        use_two_scenes(cfg)
    setup(cfg)
    metrics = train(cfg)["bbox3d"]
    of_classes = {name: value for name, value in metrics.items() if name.startswith("AP_")}
    name = max(of_classes, key=of_classes.__getitem__) if args.dataset else "mAP"
    found = metrics[name]
    sys.exit(f"overfit: {name} {found:.3f} is not above {ENOUGH}" if found <= ENOUGH else 0)


if __name__ == "__main__":
    main()
