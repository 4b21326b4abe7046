"""The real detector, very small, in the training loop."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny_detector import make_detector, make_sample, same, with_boxes

from streampetr_vit.engine.distributed import training_module
from streampetr_vit.engine.trainer import StreamingTrainer
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.training_window import evaluation_mode
from streampetr_vit.structures import Sample
from streampetr_vit.structures.tensors import tensors_of


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
    return StreamingTrainer(training_module(detector), optimizer, loader, **options)


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
        samples = [with_boxes(make_sample(0, scene=name), boxes) for name in ("a", "b")]
        detector.zero_grad()
        losses, _ = detector.losses(samples)
        sum(losses.values()).backward()
        without = [name for name, p in detector.named_parameters() if p.grad is None]
        assert not without, f"{boxes} boxes: {without}"


def test_a_nan_frame_costs_one_step_and_does_not_stay_in_the_memory() -> None:
    def spoil(step: int, samples: list[Sample]) -> None:
        if step == 1:
            broken = samples[0].lidar_to_image * float("nan")
            samples[0] = replace(samples[0], lidar_to_image=broken)

    trainer = make_trainer(make_detector(), DrivingFrames(length=8, spoil=spoil))
    trainer.train(0, 4)
    assert trainer.skipped_steps == 1
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert all(value.isfinite().all() for value in tensors_of(trainer.memory))


def test_a_stream_beside_the_training_leaves_its_memory_and_its_numbers_alone() -> None:
    """As an evaluation between two steps of a training."""
    histories = []
    for evaluated in (False, True):
        detector = make_detector()
        trainer = make_trainer(detector, DrivingFrames())
        torch.manual_seed(1)
        trainer.train(0, 2)
        memory, before = trainer.memory, copy.deepcopy(trainer.memory)
        if evaluated:
            state = torch.get_rng_state()
            with evaluation_mode(detector):
                Stream(detector)([make_sample(7, "other")])
            assert torch.equal(torch.get_rng_state(), state)
        assert trainer.memory is memory and same(memory, before)
        trainer.train(2, 4)
        histories.append(scalar_values(trainer, "total_loss"))
    assert histories[0] == histories[1] and len(histories[0]) == 2
