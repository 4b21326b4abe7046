"""Behaviour of the whole detector: streams, causality, memory, training."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny_detector import cameras, make_detector, make_sample, same
from torch import Tensor

from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.temporal.memory import NO_LINEAGE
from streampetr_vit.structures import Detections, Frame, Sample


def detect(detector: StreamPETR, samples: list[Sample]) -> list[Detections]:
    """Detections of one stream, frame by frame."""
    stream = Stream(detector.eval())
    return [stream([sample])[0] for sample in samples]


def test_frame_t_is_bit_identical_whatever_comes_after() -> None:
    detector = make_detector()
    past = [make_sample(t) for t in range(3)]
    one_future = past + [make_sample(t, seed=1) for t in (3, 4)]
    other_future = past + [make_sample(t, seed=2) for t in (3, 4)]
    first, second = detect(detector, one_future), detect(detector, other_future)
    assert all(same(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    assert not same(first[3], second[3])


def test_the_past_matters() -> None:
    detector = make_detector()
    with_past = detect(detector, [make_sample(0), make_sample(1)])[1]
    other_past = detect(detector, [make_sample(0, seed=7), make_sample(1)])[1]
    without = detect(detector, [make_sample(1)])[0]
    assert not same(with_past, other_past)
    assert not same(with_past, without)


def test_step_is_pure() -> None:
    detector = make_detector().eval()
    frame = Frame.collate([make_sample(0)])
    memory = detector.empty_memory(1)
    before = copy.deepcopy(memory)
    with torch.no_grad():
        first, next_memory = detector.step(frame, memory)
        second, _ = detector.step(frame, memory)
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(memory.embedding, before.embedding)
    assert next_memory.embedding.shape[1] == memory.embedding.shape[1] + 4


def test_nan_in_one_streams_memory_ends_with_its_reset() -> None:
    def poison(value: Tensor) -> Tensor:
        bad = torch.nan if value.is_floating_point() else 7
        return torch.cat((torch.full_like(value[:1], bad), value[1:]))

    detector = make_detector().eval()
    frame = Frame.collate([make_sample(1, "a"), make_sample(1, "b")])
    with torch.no_grad():
        _, memory = detector.step(frame, detector.empty_memory(2))
        poisoned = memory.map(poison)
        kept, _ = detector.step(frame, poisoned)
        assert kept.codes[:, 0].isnan().any() and not kept.codes[:, 1].isnan().any()
        reset = replace(frame, continues_stream=torch.tensor([False, True]))
        output, memory = detector.step(reset, poisoned)
    assert output.codes.isfinite().all() and (output.lineage[0] == NO_LINEAGE).all()
    assert memory.embedding.isfinite().all() and memory.center_m.isfinite().all()


def test_no_gradient_crosses_frames() -> None:
    detector = make_detector().train()
    frame = Frame.collate([make_sample(0)])
    _, memory = detector.step(frame, detector.empty_memory(1))
    assert not any(getattr(memory, name).requires_grad for name in vars(memory))


def test_training_gives_finite_losses_and_gradients_to_every_part() -> None:
    detector, memory = make_detector().train(), None
    for time in range(2):
        samples = [make_sample(time, "a"), make_sample(time, "b")]
        losses, memory = detector.losses(samples, memory)
    assert {"loss_cls", "loss_bbox", "d0.loss_cls", "dn_loss_cls", "d0.dn_loss_bbox"} <= set(losses)
    sum(losses.values()).backward()
    without = [n for n, p in detector.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_a_frame_without_boxes_trains_with_the_same_losses() -> None:
    detector = make_detector().train()
    full, memory = detector.losses([make_sample(0)])
    empty = make_sample(1, gt_boxes=torch.empty(0, 9), gt_labels=torch.empty(0).long())
    losses, _ = detector.losses([empty], memory)
    assert set(losses) == set(full)
    assert all(value.isfinite() for value in losses.values())
    assert losses["loss_bbox"] == 0


def test_fewer_cameras_and_padding_are_accepted() -> None:
    detector = make_detector().eval()
    sample = cameras(make_sample(0), lambda value: value[:3])
    small = replace(sample, images=sample.images[..., :27, :50])  # padded to 32 x 64
    assert len(detect(detector, [small])[0]) > 0


def test_the_head_is_float32_under_autocast() -> None:
    detector = make_detector().eval()
    frame = Frame.collate([make_sample(0)])
    with torch.no_grad():
        features = detector.image_features(frame.images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = detector.image_features(frame.images)
            output, memory = detector.step(frame, detector.empty_memory(1))
        exact, _ = detector.head(rounded, frame, detector.empty_memory(1))
    assert 0 < float((rounded - features).abs().max()) < 0.1 * float(features.abs().max())
    assert torch.equal(output.codes, exact.codes)
    assert output.codes.dtype == output.logits.dtype == torch.float32
    assert memory.time_s.dtype == torch.float64


def test_training_without_a_criterion_says_so() -> None:
    detector = make_detector().train()
    detector.criterion = None
    with pytest.raises(ValueError, match="model.criterion"):
        detector.losses([make_sample(0)])


@pytest.mark.parametrize("streams", [1, 3])
def test_a_memory_of_another_number_of_streams_is_refused(streams: int) -> None:
    """One row would be broadcast: two streams would silently share it."""
    detector = make_detector().train()
    two = [make_sample(1, "a"), make_sample(1, "b")]
    with pytest.raises(ValueError, match=rf"memory is of {streams} stream\(s\), the batch of 2"):
        detector.losses(two, detector.empty_memory(streams))
    losses, memory = detector.losses(two)
    assert len(memory.embedding) == 2 and all(value.isfinite() for value in losses.values())
