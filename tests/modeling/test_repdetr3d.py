"""RepDETR3D as an option of the one detector class: streams, training, windows, errors."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_detector import cameras, make_detector, make_repdetr3d, make_sample, with_boxes

from streampetr_vit.inference import Stream
from streampetr_vit.modeling.decoder.camera_sampling import CameraMaps
from streampetr_vit.modeling.decoder.decoder import SamplingDecoder
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.focal import FocalHead
from streampetr_vit.modeling.heads.repdetr3d import RepDETR3DHead
from streampetr_vit.modeling.heads.yolox import YOLOXHead
from streampetr_vit.modeling.training_window import TrainingWindow
from streampetr_vit.structures import Detections, Frame, Sample


def detect(detector: StreamPETR, samples: list[Sample]) -> list[Detections]:
    """Detections of one stream, frame by frame."""
    stream = Stream(detector.eval())
    return [stream([sample])[0] for sample in samples]


def test_frame_t_is_bit_identical_whatever_comes_after_and_the_past_matters() -> None:
    detector = make_repdetr3d()
    past = [make_sample(t) for t in range(2)]
    first, second = (detect(detector, [*past, make_sample(2, seed=s)]) for s in (1, 2))
    for a, b in zip(first[:2], second[:2], strict=True):
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores)
    assert not torch.equal(first[2].scores, second[2].scores)
    alone = detect(detector, past[1:])[0]
    assert not torch.equal(alone.scores, first[1].scores)


def test_both_kernels_give_the_same_detections() -> None:
    found = [
        detect(make_repdetr3d(sampling_kernel=kernel), [make_sample(0)])[0]
        for kernel in ("grid_sample", "gather")
    ]
    torch.testing.assert_close(found[0].scores, found[1].scores, atol=1e-5, rtol=1e-4)


def test_training_reaches_every_parameter_with_and_without_boxes() -> None:
    detector = make_repdetr3d().train()
    names = []
    for sample in (make_sample(0), with_boxes(make_sample(1), 0)):
        detector.zero_grad(set_to_none=True)
        losses, _ = detector.losses([sample])
        names.append(set(losses))
        sum(losses.values()).backward()
        without = [name for name, p in detector.named_parameters() if p.grad is None]
        assert not without and all(value.isfinite() for value in losses.values())
    assert names[0] == names[1]
    assert {"loss_cls", "dn_loss_bbox", "enc_loss_obj", "enc_loss_centers2d"} <= names[0]


def test_windows_carry_several_levels() -> None:
    window = TrainingWindow(num_frame_losses=1, num_frame_head_grads=2, num_frame_backbone_grads=2)
    detector = make_repdetr3d(window=window).train()
    losses, _ = detector.losses([[make_sample(t, continues=t > 0) for t in range(3)]])
    assert all(value.isfinite() for value in losses.values())


def test_permuting_cameras_permutes_nothing() -> None:
    detector, order = make_repdetr3d().eval(), [3, 1, 5, 0, 2, 4]
    sample = make_sample(0)
    permuted = cameras(sample, lambda value: value[order])
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
        image = detector.head.image_for_queries(features, frame, points, None, (32, 64))
        frame.rig.intrinsics[0, 2, 0, 0] *= -1  # as a flip does
        flipped = detector.head.image_for_queries(features, frame, points, None, (32, 64))
    assert isinstance(image, CameraMaps)
    changed = [
        not torch.equal(a, b) for a, b in zip(image.maps[0][0], flipped.maps[0][0], strict=True)
    ]
    assert changed == [False, False, True, False, False, False]


@pytest.mark.parametrize("kernel", ["grid_sample", "gather"])
def test_the_head_is_float32_under_autocast(kernel: str) -> None:
    detector = make_repdetr3d(sampling_kernel=kernel).eval()
    frame = Frame.collate([make_sample(0)])
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            rounded = detector.image_features(frame.images)
            output, _ = detector.head(rounded, frame, detector.empty_memory(1))
            sampler = detector.head.decoder.layers[0].cross_attention
            image = detector.head.image_for_queries(
                [level.float() for level in rounded], frame, torch.zeros(1, 1, 3), None, (32, 64)
            )
        exact, _ = detector.head(rounded, frame, detector.empty_memory(1))
        assert rounded[0].dtype == torch.bfloat16 and output.codes.dtype == torch.float32
        assert torch.equal(output.codes, exact.codes)
        arguments = (torch.randn(1, 2, 32), torch.randn(1, 2, 32), torch.randn(1, 2, 3) * 9, image)
        with torch.autocast("cpu", torch.bfloat16):
            under = sampler(*arguments)
        assert torch.equal(under, sampler(*arguments))


def test_start_values_of_the_decoder() -> None:
    """Xavier bounds everywhere but at the weights, which start equal; points within two metres."""
    decoder = SamplingDecoder(64, 8, 128, num_layers=1)
    layer = decoder.layers[0]
    look = layer.cross_attention
    for weight in (
        layer.self_attention.in_proj_weight,
        layer.self_attention.out_proj.weight,
        layer.feedforward[0].weight,
        layer.feedforward[3].weight,
        look.output.weight,
        look.points.weight,
        look.camera_embed[0].weight,
        look.camera_embed[2].weight,
    ):
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.9 * bound < float(weight.detach().abs().max()) <= bound
    assert not look.weights.weight.any() and not look.weights.bias.any()
    assert not layer.self_attention.out_proj.bias.any() and not look.output.bias.any()
    assert layer.feedforward[0].bias.any()
    assert 1.6 < float(look.points.bias.detach().abs().max()) <= 2.0
    assert isinstance(decoder.post_norm, torch.nn.Identity)
    assert SamplingDecoder(num_layers=1).layers[0].feedforward[0].out_features == 1024


def test_dropout_is_on_the_attentions_and_not_in_the_feedforward() -> None:
    torch.manual_seed(0)
    decoder = SamplingDecoder(32, 2, 32, num_layers=1, num_levels=1, num_groups=2, dropout=0.999)
    layer = decoder.train().layers[0]
    assert [layer.feedforward[i].p for i in (2, 4)] == [0.0, 0.0]
    layer.self_attention.dropout = 0.0  # all weights dropped would divide by zero
    layer.dropout.p = 1.0
    image = CameraMaps([torch.randn(1, 1, 32, 4, 4)], torch.eye(4)[None, None], (64, 64))
    content, position, points = torch.randn(1, 3, 32), torch.randn(1, 3, 32), torch.randn(1, 3, 3)
    found = decoder(content, position, image, points)[0]
    for norm in layer.norms[:2]:  # neither attention adds anything
        content = norm(content)
    torch.testing.assert_close(found, layer.norms[2](content + layer.feedforward(content)))


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
    with pytest.raises(ValueError, match="in_feature is 'p3', but model.head .*list of names"):
        StreamPETR(repdetr3d.backbone, repdetr3d.head, in_feature="p3")
    with pytest.raises(ValueError, match=r"model.image_head \(FocalHead\) reads one name"):
        StreamPETR(
            repdetr3d.backbone, repdetr3d.head, image_head=FocalHead(32), in_feature=["p3", "p4"]
        )
    with pytest.raises(ValueError, match="needs a SamplingDecoder, not TemporalDecoder"):
        RepDETR3DHead(streampetr.head.decoder)
    with pytest.raises(ValueError, match="kernel 'cuda' is unknown"):
        SamplingDecoder(32, num_layers=1, sampling_kernel="cuda")
    repdetr3d.in_feature = ("p3", "nope")
    with pytest.raises(ValueError, match="'nope'.*but the features are"):
        repdetr3d.image_features(frame.images)
    wide = [torch.zeros(1, 6, 16, 4, 8)] * 2
    with pytest.raises(ValueError, match=r"levels have \[16\] channels, the decoder 32"):
        repdetr3d.head(wide, frame, repdetr3d.empty_memory(1))
