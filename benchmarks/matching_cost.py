#!/usr/bin/env python
"""What matching and losses cost in a training step: all at once, and one layer after the other.

    python benchmarks/matching_cost.py --config-file configs/quickstart.py [key=value ...]

Takes training steps of a recipe on its own data and on the device of train.device, then times
forward and backward of the losses alone on what the network gave: once as the trainer does it, with
one copy of all costs to the host, and once with a copy for every layer, stream and picture.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from functools import partial

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import Tensor

from streampetr_vit.benchmark.timing import call_seconds
from streampetr_vit.engine import load_config
from streampetr_vit.engine.distributed import resolve_device
from streampetr_vit.engine.recipe import build_optimizer
from streampetr_vit.modeling.criterion.assignment import assign
from streampetr_vit.modeling.criterion.training_loss import FrameResult, TrainingLoss
from streampetr_vit.modeling.heads.outputs import HeadOutput, ImageOutput
from streampetr_vit.modeling.ops.precision import autocast
from streampetr_vit.structures import FrameTargets


def layer_by_layer(
    criterion: TrainingLoss, results: list[FrameResult], targets: list[FrameTargets]
) -> dict[str, Tensor]:
    """The same losses with one assignment call per layer, stream and picture."""
    losses = {}
    for result, true in zip(results, targets, strict=True):
        for layer in range(len(result.output.logits)):
            one = HeadOutput(
                *(
                    None if value is None else value[layer : layer + 1]
                    for value in (
                        result.output.logits,
                        result.output.codes,
                        result.output.states,
                        result.output.denoising_logits,
                        result.output.denoising_codes,
                    )
                )
            )
            costs = criterion.detection.costs(one, true.boxes, true.labels)
            pairs = [assign([cost])[0] for cost in costs]
            of_layer = criterion.detection.losses(
                one, true.boxes, true.labels, pairs, result.denoising
            )
            losses |= {f"{layer}.{name}": value for name, value in of_layer.items()}
        if criterion.image is not None:
            assert result.image_output is not None and true.boxes2d is not None
            inputs = (result.image_output, true.boxes2d, result.image_size)
            pairs = [assign([cost])[0] for cost in criterion.image.costs(*inputs)]
            losses |= criterion.image.losses(*inputs, pairs)
    return losses


def leaves(result: FrameResult) -> FrameResult:
    """The same values, cut off from the network."""

    def cut(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.detach().requires_grad_()

    output, image = result.output, result.image_output
    return replace(
        result,
        output=HeadOutput(**{name: cut(value) for name, value in vars(output).items()}),
        image_output=image and ImageOutput(**{n: cut(v) for n, v in vars(image).items()}),
    )


class Recording:
    """A criterion that keeps what it was given."""

    def __init__(self, criterion: TrainingLoss) -> None:
        self.criterion, self.image = criterion, criterion.image

    def __call__(
        self, results: list[FrameResult], targets: list[FrameTargets]
    ) -> dict[str, Tensor]:
        self.given = ([leaves(result) for result in results], targets)
        return self.criterion(results, targets)


def measure(cfg: DictConfig, steps: int) -> dict[str, float]:
    """Median milliseconds of a training step and of its losses in both ways.

    Args:
        cfg: a whole configuration.
        steps: that are timed, after three to warm up.
    """
    device = resolve_device(cfg.train.device)
    model = instantiate(cfg.model).to(device).train()
    optimizer = build_optimizer(cfg.optimizer, model)
    criterion = model.criterion
    model.criterion = recording = Recording(criterion)
    samples: dict[str, list[float]] = {"step": [], "one by one": [], "at once": []}

    def step(batch: list) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(cfg.train.precision, device.type):
            losses = model(batch)
        sum(losses.values()).backward()
        optimizer.step()

    for number, batch in zip(range(3 + steps), instantiate(cfg.dataloader.train), strict=False):
        step_ms = 1e3 * call_seconds(partial(step, batch), device)
        given = recording.given
        calls = {
            "one by one": lambda given=given: layer_by_layer(criterion, *given),
            "at once": lambda given=given: criterion(*given),
        }
        for name, call in calls.items():
            backward = partial(lambda call: sum(call().values()).backward(), call)
            time_ms = 1e3 * call_seconds(backward, device)
            if number >= 3:
                samples[name].append(time_ms)
        if number >= 3:
            samples["step"].append(step_ms)
    return {name: statistics.median(values) for name, values in samples.items()}


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
    medians = measure(cfg, args.steps)
    device = resolve_device(cfg.train.device)
    where = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else f"{device}"
    print(f"{where}, torch {torch.__version__}, {time.strftime('%F')}, {args.steps} steps")
    print(f"training step                   {medians['step']:8.2f} ms")
    for name in ("one by one", "at once"):
        share = 100 * medians[name] / medians["step"]
        print(f"matching and losses, {name:<10} {medians[name]:8.2f} ms  {share:5.1f} % of a step")


if __name__ == "__main__":
    main()
