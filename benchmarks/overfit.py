#!/usr/bin/env python
"""Proof that the losses train the whole detector: two scenes, learned by heart.

    python benchmarks/overfit.py --minutes 60 [key=value ...]

Trains configs/quickstart.py on two scenes of its data and evaluates on the same two. The status is
1 if mAP stays at 0.8 or below; OUTPUT/report.html has the curves. docs/train.md has the same as a
command, and its result.
"""

import argparse
import sys
from pathlib import Path

from streampetr_vit.command_line import above_0
from streampetr_vit.engine import load_config, setup, train
from streampetr_vit.errors import one_line_errors
from synthetic_nuscenes import PRESETS, SyntheticError, generate


@one_line_errors(SyntheticError)
def main() -> None:
    """Trains and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=above_0, default=60.0, help="of training")
    parser.add_argument("opts", nargs="*", help="overrides of the recipe")
    args = parser.parse_args()
    options = [f"train.max_seconds={60 * args.minutes}", "train.max_iter=1000000"]
    options += ["train.eval_period=2000", "train.output_dir=output/overfit"]
    options += ["report.memory_off=False", *args.opts]
    recipe = Path(__file__).resolve().parents[1] / "configs" / "quickstart.py"
    cfg = load_config(str(recipe), options)
    preset = PRESETS[cfg.synthetic.preset]
    generate(preset, Path(cfg.dataloader.train.dataset.root))
    for loader in ("train", "test"):
        cfg.dataloader[loader].dataset.split = preset.scene_names()[0][:2]
    setup(cfg)
    found = train(cfg)["bbox3d"]["mAP"]
    sys.exit(f"overfit: mAP {found:.3f} is not above 0.8" if found <= 0.8 else 0)


if __name__ == "__main__":
    main()
