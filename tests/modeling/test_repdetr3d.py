"""RepDETR3D as an option of the one detector class: streams, training, windows, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_detector import make_detector, make_repdetr3d, make_sample

from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.yolox import YOLOXHead
from streampetr_vit.modeling.temporal.camera_sampling import CameraMaps
from streampetr_vit.modeling.training_window import TrainingWindow
from streampetr_vit.structures import Detections, Frame


def stream(detector: StreamPETR, frames: list[dict[str, Any]]) -> list[Detections]:
    detector.eval().reset_streams()
    return [detector([frame])[0]["detections"] for frame in frames]


def test_frame_t_is_bit_identical_whatever_comes_after_and_the_past_matters() -> None:
    detector = make_repdetr3d()
    past = [make_sample(t) for t in range(2)]
    first, second = (stream(detector, [*past, make_sample(2, seed=s)]) for s in (1, 2))
    for a, b in zip(first[:2], second[:2], strict=True):
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores)
    assert not torch.equal(first[2].scores, second[2].scores)
    alone = stream(detector, past[1:])[0]
    assert not torch.equal(alone.scores, first[1].scores)


def test_both_kernels_give_the_same_detections() -> None:
    found = [
        stream(make_repdetr3d(sampling_kernel=kernel), [make_sample(0)])[0]
        for kernel in ("grid_sample", "gather")
    ]
    torch.testing.assert_close(found[0].scores, found[1].scores, atol=1e-5, rtol=1e-4)


def test_training_reaches_every_parameter_with_and_without_boxes() -> None:
    detector = make_repdetr3d().train()
    empty = make_sample(1)
    empty["gt_boxes"], empty["gt_labels"] = empty["gt_boxes"][:0], empty["gt_labels"][:0]
    empty["boxes2d"] = [boxes[torch.empty(0, dtype=torch.long)] for boxes in empty["boxes2d"]]
    names = []
    for sample in (make_sample(0), empty):
        detector.zero_grad(set_to_none=True)
        losses = detector([sample])
        names.append(set(losses))
        sum(losses.values()).backward()
        without = [name for name, p in detector.named_parameters() if p.grad is None]
        assert not without and all(value.isfinite() for value in losses.values())
    assert names[0] == names[1]
    assert {"loss_cls", "dn_loss_bbox", "enc_loss_obj", "enc_loss_centers2d"} <= names[0]


def test_windows_carry_several_levels() -> None:
    window = TrainingWindow(num_frame_losses=1, num_frame_head_grads=2, num_frame_backbone_grads=2)
    detector = make_repdetr3d(window=window).train()
    losses = detector([[make_sample(t, continues=t > 0) for t in range(3)]])
    assert all(value.isfinite() for value in losses.values())


def test_permuting_cameras_permutes_nothing() -> None:
    detector, order = make_repdetr3d().eval(), [3, 1, 5, 0, 2, 4]
    sample = make_sample(0)
    permuted = dict(sample)
    for key in ("images", "intrinsics", "lidar_to_camera", "lidar_to_image"):
        permuted[key] = sample[key][order]
    with torch.no_grad():
        a, b = (
            detector.step(Frame.collate([s]), detector.empty_memory(1))[0].codes
            for s in (sample, permuted)
        )
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_cameras_modulate_the_maps_by_signed_focal_lengths_and_poses() -> None:
    detector = make_repdetr3d().eval()
    frame = Frame.collate([make_sample(0)])
    with torch.no_grad():
        features = detector.image_features(frame.images)
        points = torch.zeros(1, 1, 3)
        image = detector.head.look(features, frame, points, None)
        frame.rig.intrinsics[0, 2, 0, 0] *= -1  # as a flip does
        flipped = detector.head.look(features, frame, points, None)
    assert isinstance(image, CameraMaps) and image.image_size == (32, 64)
    changed = [
        not torch.equal(a, b) for a, b in zip(image.maps[0][0], flipped.maps[0][0], strict=True)
    ]
    assert changed == [False, False, True, False, False, False]


def test_parts_that_do_not_belong_together_are_named() -> None:
    streampetr, repdetr3d = make_detector().eval(), make_repdetr3d().eval()
    frame = Frame.collate([make_sample(0)])
    one, several = streampetr.image_features(frame.images), repdetr3d.image_features(frame.images)
    with pytest.raises(ValueError, match="reads one map of features, not 2: set model.in_feature"):
        streampetr.head(several, frame, streampetr.empty_memory(1))
    with pytest.raises(ValueError, match="several levels of features: set model.in_feature"):
        repdetr3d.head(one, frame, repdetr3d.empty_memory(1))
    tokens = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="no tokens to choose from"):
        repdetr3d.head(several, frame, repdetr3d.empty_memory(1), token_indexes=tokens)
    with pytest.raises(ValueError, match="needs a FocalHead as image_head.*not YOLOXHead"):
        StreamPETR(repdetr3d.backbone, repdetr3d.head, image_head=YOLOXHead(8), token_ratio=0.5)
