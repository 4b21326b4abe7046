"""The real detector, very small, in the training loop."""

from __future__ import annotations

import pytest
import torch
from tiny_detector import make_detector, make_sample
from torch import Tensor

from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.modeling.detector import StreamPETR


class DrivingFrames:
    """Two streams of `length` frames, again and again; `spoil` changes the samples of a step."""

    def __init__(self, length: int = 4, spoil=None) -> None:
        self._length, self._spoil = length, spoil or (lambda step, samples: None)

    def __iter__(self):
        step = 0
        while True:
            samples = [make_sample(step % self._length, scene=name) for name in ("a", "b")]
            self._spoil(step, samples)
            yield samples
            step += 1


def make_trainer(detector: StreamPETR, loader: DrivingFrames, **options) -> StreamingTrainer:
    optimizer = torch.optim.AdamW(detector.parameters(), lr=5e-3)
    return StreamingTrainer(detector, optimizer, loader, forget=detector.reset_streams, **options)


def scalar_values(trainer: StreamingTrainer, name: str) -> list[float]:
    return [value for value, _ in trainer.storage.history(name).values()]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_loss_falls(precision: str) -> None:
    trainer = make_trainer(make_detector(), DrivingFrames(length=2), precision=precision)
    trainer.train(0, 10)
    totals = scalar_values(trainer, "total_loss")
    assert trainer.skipped_steps == 0
    assert sum(totals[-4:]) < 0.92 * sum(totals[:4])


def test_every_parameter_gets_a_gradient_with_and_without_boxes() -> None:
    # Data-parallel training fails on a rank whose step leaves a parameter out.
    detector = make_detector().train()
    for boxes in (3, 0):
        samples = [make_sample(0, scene=name) for name in ("a", "b")]
        for sample in samples:
            sample["gt_boxes"], sample["gt_labels"] = (
                sample[key][:boxes] for key in ("gt_boxes", "gt_labels")
            )
            sample["boxes2d"] = [b[torch.arange(min(len(b), boxes))] for b in sample["boxes2d"]]
        detector.zero_grad()
        sum(detector(samples).values()).backward()
        without = [name for name, p in detector.named_parameters() if p.grad is None]
        assert not without, f"{boxes} boxes: {without}"


def test_a_nan_frame_costs_one_step_and_does_not_stay_in_the_memory() -> None:
    def spoil(step: int, samples: list[dict[str, Tensor]]) -> None:
        if step == 1:
            samples[0]["lidar_to_image"] = samples[0]["lidar_to_image"] * float("nan")

    trainer = make_trainer(make_detector(), DrivingFrames(length=8, spoil=spoil))
    trainer.train(0, 4)
    assert trainer.skipped_steps == 1
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
