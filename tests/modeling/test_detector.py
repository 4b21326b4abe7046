"""Behaviour of the whole detector: streams, causality, memory, training."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_detector import make_detector, make_sample

from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Detections, Frame

Sample = dict[str, Any]


def detect(detector: StreamPETR, samples: list[Sample]) -> Detections:
    return detector(samples)[0]["detections"]


def stream(detector: StreamPETR, frames: list[Sample]) -> list[Detections]:
    """Detections of one stream, frame by frame."""
    detector.eval().reset_streams()
    return [detect(detector, [frame]) for frame in frames]


def same(a: Detections, b: Detections) -> bool:
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("boxes", "scores", "labels"))


def test_frame_t_is_bit_identical_whatever_comes_after() -> None:
    detector = make_detector()
    past = [make_sample(t) for t in range(3)]
    one_future = past + [make_sample(t, seed=1) for t in (3, 4)]
    other_future = past + [make_sample(t, seed=2) for t in (3, 4)]
    first, second = stream(detector, one_future), stream(detector, other_future)
    assert all(same(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    assert not same(first[3], second[3])


def test_the_past_matters() -> None:
    detector = make_detector()
    with_past = stream(detector, [make_sample(0), make_sample(1)])[1]
    other_past = stream(detector, [make_sample(0, seed=7), make_sample(1)])[1]
    without = stream(detector, [make_sample(1)])[0]
    assert not same(with_past, other_past)
    assert not same(with_past, without)


def test_memory_off_makes_every_frame_its_own_stream() -> None:
    detector = make_detector()
    detector.memory_at_test = False
    second = stream(detector, [make_sample(0), make_sample(1)])[1]
    alone = stream(detector, [make_sample(1)])[0]
    assert same(second, alone)


def test_a_new_scene_starts_with_an_empty_memory() -> None:
    detector = make_detector()
    after_other = stream(detector, [make_sample(0, "a"), make_sample(1, "a"), make_sample(0, "b")])
    assert same(after_other[2], stream(detector, [make_sample(0, "b")])[0])


def test_batch_of_two_streams_equals_each_alone() -> None:
    detector = make_detector().eval()
    a = [make_sample(t, "a") for t in range(3)]
    b = [make_sample(t, "b") for t in (0, 1)] + [make_sample(0, "c")]  # a change of scene
    detector.reset_streams()
    both = [detector([x, y]) for x, y in zip(a, b, strict=True)]
    alone = [stream(detector, frames) for frames in (a, b)]
    for time, pair in enumerate(both):
        for row, result in enumerate(pair):
            found, expected = result["detections"], alone[row][time]
            assert torch.equal(found.labels, expected.labels)
            torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.scores, expected.scores, atol=1e-6, rtol=1e-5)


def test_out_of_order_frames_are_refused() -> None:
    detector = make_detector().eval()
    detector([make_sample(1)])
    with pytest.raises(ValueError, match="scene a are out of order.*reset_streams"):
        detector([make_sample(0)])


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
    detector = make_detector().eval()
    frame = Frame.collate([make_sample(1, "a"), make_sample(1, "b")])
    with torch.no_grad():
        _, memory = detector.step(frame, detector.empty_memory(2))
        poisoned = memory.map(lambda x: torch.cat((torch.full_like(x[:1], torch.nan), x[1:])))
        kept, _ = detector.step(frame, poisoned)
        assert kept.codes[:, 0].isnan().any() and not kept.codes[:, 1].isnan().any()
        reset = replace(frame, continues_stream=torch.tensor([False, True]))
        output, memory = detector.step(reset, poisoned)
    assert output.codes.isfinite().all()
    assert memory.embedding.isfinite().all() and memory.center_m.isfinite().all()


def test_no_gradient_crosses_frames() -> None:
    detector = make_detector().train()
    frame = Frame.collate([make_sample(0)])
    _, memory = detector.step(frame, detector.empty_memory(1))
    assert not any(getattr(memory, name).requires_grad for name in vars(memory))


def test_training_gives_finite_losses_and_gradients_to_every_part() -> None:
    detector = make_detector().train()
    for time in range(2):
        losses = detector([make_sample(time, "a"), make_sample(time, "b")])
    assert {"loss_cls", "loss_bbox", "d0.loss_cls", "dn_loss_cls", "d0.dn_loss_bbox"} <= set(losses)
    sum(losses.values()).backward()
    without = [n for n, p in detector.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_training_and_inference_have_memories_of_their_own() -> None:
    detector = make_detector()
    torch.manual_seed(3)
    detector.train()([make_sample(0)])
    detector.eval()([make_sample(5, "other")])
    torch.manual_seed(4)
    interrupted = detector.train()([make_sample(1)])
    detector.reset_streams()
    torch.manual_seed(3)
    detector([make_sample(0)])
    torch.manual_seed(4)
    uninterrupted = detector([make_sample(1)])
    for name, value in uninterrupted.items():
        torch.testing.assert_close(interrupted[name], value, atol=1e-5, rtol=1e-5)


def test_a_frame_without_boxes_trains_with_the_same_losses() -> None:
    detector = make_detector().train()
    full = detector([make_sample(0)])
    empty = make_sample(1) | {"gt_boxes": torch.empty(0, 9), "gt_labels": torch.empty(0).long()}
    losses = detector([empty])
    assert set(losses) == set(full)
    assert all(value.isfinite() for value in losses.values())
    assert losses["loss_bbox"] == 0


def test_fewer_cameras_and_padding_are_accepted() -> None:
    detector = make_detector().eval()
    sample = make_sample(0)
    for key in ("images", "intrinsics", "lidar_to_camera", "lidar_to_image"):
        sample[key] = sample[key][:3]
    sample["images"] = sample["images"][..., :27, :50]  # padded to 32 x 64
    assert len(detect(detector, [sample])) > 0


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
        detector([make_sample(0)])
