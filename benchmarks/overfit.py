#!/usr/bin/env python
"""Proof that the losses train the whole detector: two scenes, learned by heart.

    python benchmarks/overfit.py --minutes 60 [key=value ...]

Trains the quick start's recipe, with everything that the published one has (2D head, denoising,
GridMask, temporal memory), on two synthetic scenes, and evaluates on the same two. Prints the curve
of the official metric and ends with status 1 if mAP stays at 0.8 or below.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from streampetr_vit.engine import load_config, setup, train
from streampetr_vit.report.charts import Chart, render_chart
from streampetr_vit.report.curves import read_scalars
from synthetic_nuscenes import PRESETS, generate

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.8
METRICS = ("mAP", "NDS", "mAP_4m", "mAP_2m", "mAP_1m", "mAP_0.5m", "mATE", "mAOE", "mAVE")


def main() -> None:
    """Trains, and prints the curve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of training")
    parser.add_argument("opts", nargs="*", help="overrides of configs/quickstart.py")
    args = parser.parse_args()
    overrides = [
        f"train.max_seconds={60 * args.minutes}",
        "train.max_iter=1000000",
        "train.eval_period=2000",
        "train.output_dir=output/overfit",
        "report.memory_off=False",
        *args.opts,
    ]
    cfg = load_config(str(ROOT / "configs" / "quickstart.py"), overrides)
    preset = PRESETS[cfg.synthetic.preset]
    data = Path(cfg.dataloader.train.dataset.root)
    generate(preset, data)
    scenes = preset.scene_names()[0][:2]
    for loader in ("train", "test"):
        cfg.dataloader[loader].dataset.split = scenes
    start = time.monotonic()
    setup(cfg)
    result = train(cfg)["bbox3d"]["mAP"]
    show_curve(Path(cfg.train.output_dir), time.monotonic() - start)
    if result <= GOAL:
        sys.exit(f"overfit: mAP {result:.3f} is not above {GOAL}")


def show_curve(output: Path, seconds: float) -> None:
    """Prints the evaluations as a table and draws `overfit.svg`."""
    scalars = read_scalars(output / "metrics.json")
    curves = {name: scalars[f"bbox3d/{name}"] for name in METRICS}
    print(f"\n{seconds:.0f} s\n| step | {' | '.join(METRICS)} |\n|{'---|' * (1 + len(METRICS))}")
    for step in curves["mAP"]:
        values = " | ".join(f"{curve[step]:.3f}" for curve in curves.values())
        print(f"| {step + 1} | {values} |")
    chart = Chart("Two scenes, learned by heart", {name: curves[name] for name in METRICS[:2]})
    (output / "overfit.svg").write_text(render_chart(chart))


if __name__ == "__main__":
    main()
