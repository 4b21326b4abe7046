#!/usr/bin/env python
"""What matching and losses cost in a training step.

    python benchmarks/matching_cost.py --config-file configs/quickstart.py [key=value ...]

Takes the trainer's steps of a recipe on its own data, and times forward and backward of the losses
alone on what the network gives.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import instantiate

from streampetr_vit.benchmark.timing import call_seconds, median
from streampetr_vit.engine import StreamingTrainer, build_model, load_config
from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.recipe import build_optimizer
from streampetr_vit.modeling.criterion.training_loss import FrameResult
from streampetr_vit.structures import collate_windows


def leaves(result: FrameResult) -> FrameResult:
    """The same predictions, cut off from the network, with gradients of their own."""

    def cut(output: Any) -> Any:
        values = {name: value.clone() for name, value in vars(output).items() if value is not None}
        floats = {k: v.requires_grad_() for k, v in values.items() if v.is_floating_point()}
        return replace(output, **floats)

    image = result.image_output
    return replace(result, output=cut(result.output), image_output=image and cut(image))


def main() -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--steps", type=int, default=20, help="that are timed, after three")
    parser.add_argument("overrides", nargs="*", help="changes of the configuration, key=value")
    args = parser.parse_args()
    cfg = load_config(args.config_file, args.overrides)
    if cfg.train.num_threads is not None:
        torch.set_num_threads(cfg.train.num_threads)
    model = build_model(cfg)
    optimizer, loader = build_optimizer(cfg.optimizer, model), instantiate(cfg.dataloader.train)
    trainer = StreamingTrainer(training_module(model), optimizer, precision=cfg.train.precision)
    steps, losses = [], []
    for batch, _ in zip(loader, range(3 + args.steps), strict=False):
        frames, targets = collate_windows(batch, model.device, model.window.num_frame_head_grads)
        memory = trainer.memory or model.empty_memory(len(batch))

        def step(batch: Any = batch) -> None:
            found = trainer.forward(batch)
            trainer.update(found, trainer.backward(found))

        steps.append(call_seconds(step, model.device))
        with torch.no_grad():
            results, _ = model.play(frames, memory, model.draw(frames[0].image_size, targets))
        cut = [leaves(result) for result in results], targets[-len(results) :]

        def match(given: Any = cut) -> None:
            sum(model.criterion(*given).values()).backward()

        losses.append(call_seconds(match, model.device))
    step_ms, losses_ms = 1e3 * median(steps[3:]), 1e3 * median(losses[3:])
    print(f"{model.device}, torch {torch.__version__}, {time.strftime('%F')}, {args.steps} steps")
    print(f"training step {step_ms:.2f} ms; matching and losses {losses_ms:.2f} ms")
    print(f"that is {100 * losses_ms / step_ms:.1f} % of it")


if __name__ == "__main__":
    main()
