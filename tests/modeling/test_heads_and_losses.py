"""The optional prior, box coding, denoising and the losses, on cases that one can check by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from tiny_detector import cameras, last_layer, make_detector, make_sample

from streampetr_vit.modeling.criterion.assignment import assign
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise, expected_positives
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.criterion.losses import l1_loss_sum, sigmoid_focal_loss_sum
from streampetr_vit.modeling.criterion.matcher import HungarianMatcher
from streampetr_vit.modeling.decoder.attention import ImageTokens
from streampetr_vit.modeling.decoder.decoder import SamplingDecoder, TemporalDecoder
from streampetr_vit.modeling.heads.box_coding import decode_boxes, decode_padded, encode_boxes
from streampetr_vit.modeling.heads.geometric_prior import projection_bias
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead
from streampetr_vit.modeling.image.position_encoder import ImagePositionEncoder, depth_bins
from streampetr_vit.modeling.ops.geometry import denormalize_from_range
from streampetr_vit.structures import Frame

RANGE = torch.tensor([-51.2, -51.2, -5.0, 51.2, 51.2, 3.0])


def test_prior_peaks_at_the_projection_and_is_constant_behind_the_cameras() -> None:
    # A camera at the origin that looks along +z with focal length 10 and centre (8, 8).
    camera = torch.eye(4)
    camera[0, 0] = camera[1, 1] = 10.0
    camera[0, 2] = camera[1, 2] = 8.0
    pixels = torch.tensor([[8.0, 8.0], [13.0, 8.0], [200.0, 8.0]])
    points = torch.tensor([[[0.0, 0.0, 5.0], [1.0, 0.0, 2.0], [0.0, 0.0, -5.0]]])
    bias = projection_bias(points, camera[None, None], pixels, sigma_px=5.0)
    expected = torch.tensor([[[0.0, -0.5, -8.0], [-0.5, 0.0, -8.0], [-8.0, -8.0, -8.0]]])
    torch.testing.assert_close(bias, expected)


def test_prior_is_off_by_default_and_changes_no_parameter() -> None:
    plain, with_prior = make_detector(), make_detector(prior_sigma_cells=1.0)
    assert plain.state_dict().keys() == with_prior.state_dict().keys()
    frame = Frame.collate([make_sample(0)])
    with torch.no_grad():
        a = plain.eval().step(frame, plain.empty_memory(1))[0].codes
        b = with_prior.eval().step(frame, with_prior.empty_memory(1))[0].codes
    assert not torch.equal(a, b)


def test_box_codes_round_trip() -> None:
    boxes = torch.tensor([[1.0, -2.0, 0.5, 4.0, 2.0, 1.5, 3.0, 5.0, -1.0]])
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes)), boxes)


def test_detections_are_sorted_and_inside_the_range() -> None:
    logits = torch.full((3, 10), -9.0)
    logits[0, 2], logits[1, 5], logits[2, 0] = 1.0, 2.0, 3.0
    codes = encode_boxes(torch.tensor([[0.0] * 3 + [1.0] * 3 + [0.0] * 3] * 3))
    codes[2, 0] = 100.0  # outside
    found = decode_padded(last_layer(logits[None], codes[None]), 3, RANGE).unpad()[0]
    assert found.labels.tolist() == [5, 2]
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_denoising_positives_follow_the_cube() -> None:
    """The published divisor: volume of a sphere of radius 0.75 in the cube [-1, 1]^3."""
    boxes = torch.rand(2000, 9) * 4 + 1
    labels = torch.zeros(2000, dtype=torch.long)
    torch.manual_seed(0)
    queries = DenoisingNoise(groups=5).make([boxes], [labels], RANGE, 10)
    share = float((queries.labels == 0).double().mean())
    assert share == pytest.approx(math.pi / 6 * 0.75**3, abs=0.01)
    assert expected_positives(10000, 0.75) / 10000 == pytest.approx(share, abs=0.01)


def test_denoising_noise_reaches_the_scaled_half_size_and_translation() -> None:
    """At the corner of the draws a centre moves by (half the size + translation) * scale."""
    box = torch.tensor([[1.0, 2.0, -1.0, 4.0, 2.0, 1.0, 0.0, 0.0, 0.0]])
    noise = DenoisingNoise(groups=1, scale=0.5, translation_m=3.0)
    lowest = noise.make([box], [torch.zeros(1, dtype=torch.long)], RANGE, 10, torch.zeros(1, 3))
    moved = denormalize_from_range(lowest.reference_points[0, 0], RANGE)
    torch.testing.assert_close(moved, torch.tensor([1.0 - 2.5, 2.0 - 2.0, -1.0 - 1.75]))


def test_denoising_groups_see_only_themselves() -> None:
    boxes = torch.rand(2, 9)
    labels = torch.zeros(2, dtype=torch.long)
    noise = DenoisingNoise(groups=3)
    queries = noise.make([boxes, boxes[:1]], [labels, labels[:1]], RANGE, num_classes=1)
    assert queries.num_slots == 6
    blocked = queries.blocked(num_queries=2, num_keys=3)
    assert blocked.shape == (8, 9)
    assert blocked[6:, :6].all() and not blocked[6:, 6:].any()
    assert not blocked[:2, :2].any() and blocked[:2, 2:6].all() and not blocked[:2, 6:].any()


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 0.5, 0.75
    expected = -0.25 * 0.5**2 * math.log(0.5) - 0.75 * 0.75**2 * math.log(0.25)
    assert float(sigmoid_focal_loss_sum(logits, torch.tensor([0]))) == pytest.approx(expected)


def test_l1_loss_leaves_out_rows_that_are_not_finite_and_their_gradients() -> None:
    codes = torch.zeros(2, 10, requires_grad=True)
    targets = torch.ones(2, 10)
    targets[1, 3] = -math.inf
    loss = l1_loss_sum(codes, targets, torch.ones(10))
    loss.backward()
    assert float(loss.detach()) == 10.0
    assert codes.grad is not None and not codes.grad[1].any() and codes.grad.isfinite().all()


def test_matcher_finds_the_planted_pairs_in_every_layer() -> None:
    boxes = torch.tensor([[0.0] * 3 + [1.0] * 3 + [0.0] * 3, [9.0] * 3 + [2.0] * 3 + [1.0] * 3])
    labels = torch.tensor([3, 7])
    codes = torch.randn(2, 1, 5, 10) * 30
    logits = torch.full((2, 1, 5, 10), -4.0)
    for layer, (first, second) in enumerate(((4, 1), (0, 2))):
        codes[layer, 0, first], codes[layer, 0, second] = encode_boxes(boxes)
        logits[layer, 0, first, 3] = logits[layer, 0, second, 7] = 4.0
    (pairs,) = assign(HungarianMatcher().costs(logits, codes, [boxes], [labels]))
    assert pairs.tolist() == [[[1, 1], [4, 0]], [[0, 0], [2, 1]]]


def test_depth_bins_anchors() -> None:
    bins = depth_bins(64, 1.0, 61.2, linear_increasing=True)
    expected = torch.tensor([1.0, 1.0289423, 1.0868269, 18.2206726, 59.3476906])
    torch.testing.assert_close(bins[[0, 1, 2, 34, 63]], expected)


def test_tiled_intrinsics_are_a_quirk_that_can_be_switched_off() -> None:
    limits = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    intrinsics = torch.eye(4).repeat(1, 3, 1, 1)
    intrinsics[0, :, 0, 0] = torch.tensor([1000.0, -2000.0, 3000.0])
    points = torch.zeros(1, 6, 96)
    tiled = ImagePositionEncoder(8, limits, 32).cone(points, intrinsics)[0, :, 0]
    each = ImagePositionEncoder(8, limits, 32, tile_intrinsics=False).cone(points, intrinsics)
    assert tiled.tolist() == [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    assert each[0, :, 0].tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_permuting_cameras_permutes_nothing_without_the_tiling_quirk() -> None:
    detector = make_detector().eval()
    detector.head.position_encoder.tile_intrinsics = False
    sample, order = make_sample(0), [3, 1, 5, 0, 2, 4]
    permuted = cameras(sample, lambda value: value[order])
    with torch.no_grad():
        a, b = (
            detector.step(Frame.collate([s]), detector.empty_memory(1))[0].codes
            for s in (sample, permuted)
        )
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


def frame_losses(**options: Any) -> dict[str, torch.Tensor]:
    """Losses of one frame with denoising, by a criterion with options."""
    detector, sample = make_detector().train(), make_sample(0)
    boxes, labels = [sample.gt_boxes], [sample.gt_labels]
    torch.manual_seed(0)
    queries = detector.denoising.make(boxes, labels, RANGE, 10)
    frame = Frame.collate([sample])
    output, _ = detector.step(frame, detector.empty_memory(1), queries)
    criterion = DetectionLoss(**options)
    pairs = assign(criterion.costs(output, boxes, labels))
    return criterion.losses(output, boxes, labels, pairs, queries)


def test_the_weight_of_denoising_scales_its_losses_only() -> None:
    whole, half = frame_losses(), frame_losses(denoising_weight=0.5)
    for name, value in whole.items():
        torch.testing.assert_close(half[name], value * (0.5 if "dn_" in name else 1.0))


def test_a_mean_count_below_one_divides_by_one() -> None:
    few = frame_losses(reduce_mean=lambda counts: counts * 0 + 0.25)
    one = frame_losses(reduce_mean=lambda counts: counts * 0 + 1.0)
    assert few == one


def test_checkpointed_layers_draw_the_same_dropout_again() -> None:
    gradients = {}
    for dropout, use_act_checkpoint in ((0.5, False), (0.5, True), (0.0, False)):
        torch.manual_seed(0)
        decoder = TemporalDecoder(8, 2, 8, 2, dropout, use_act_checkpoint=use_act_checkpoint)
        queries, tokens = torch.randn(1, 5, 8), torch.randn(1, 9, 8)
        image = ImageTokens(tokens, tokens)
        decoder.train()(queries, queries, image).square().sum().backward()
        gradients[dropout, use_act_checkpoint] = [p.grad for p in decoder.parameters()]
    plain, checkpointed, without = gradients.values()
    assert all(map(torch.equal, plain, checkpointed))
    # There was something to draw again.
    assert not any(map(torch.equal, plain, without))


@pytest.mark.parametrize("place", ["self_attention", "cross_attention", "feedforward"])
def test_every_part_of_a_layer_drops_in_training_only(place: str) -> None:
    torch.manual_seed(0)
    decoder = TemporalDecoder(8, 2, 8, 1, dropout=0.0)
    exact = copy.deepcopy(decoder)
    layer = decoder.layers[0]
    dropping = TemporalDecoder(8, 2, 8, 1, 0.5, cross_attention_dropout=0.5).layers[0]
    if place == "feedforward":
        layer.feedforward[2], layer.feedforward[4] = (dropping.feedforward[i] for i in (2, 4))
    else:
        getattr(layer, place).dropout = getattr(dropping, place).dropout
    queries, tokens = torch.randn(1, 5, 8), torch.randn(1, 9, 8)
    image = ImageTokens(tokens, tokens)
    expected = exact(queries, queries, image)
    assert not torch.equal(decoder.train()(queries, queries, image), expected)
    assert torch.equal(decoder.eval()(queries, queries, image), expected)


def test_decoders_hand_their_dropouts_on() -> None:
    """Each rate to its place: on attention weights and outputs, and in the feed-forward."""
    temporal = TemporalDecoder(8, 2, 8, 2, dropout=0.3, cross_attention_dropout=0.2)
    sampling = SamplingDecoder(8, 2, 8, 2, num_groups=2, dropout=0.3, feedforward_dropout=0.4)
    for decoder, feedforward in ((temporal, 0.3), (sampling, 0.4)):
        for layer in decoder.layers:
            assert layer.self_attention.dropout == layer.dropout.p == 0.3
            rates = [m.p for m in layer.feedforward if isinstance(m, torch.nn.Dropout)]
            assert rates == [feedforward, feedforward]
    assert all(layer.cross_attention.dropout == 0.2 for layer in temporal.layers)


class Nothing(torch.nn.Module):
    """Drops all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def test_the_outputs_of_both_attentions_are_dropped() -> None:
    torch.manual_seed(0)
    layer = TemporalDecoder(8, 2, 8, 1, dropout=0.0).layers[0]
    layer.dropout = Nothing()
    queries, tokens = torch.randn(1, 5, 8), torch.randn(1, 9, 8)
    found = layer(queries, queries, ImageTokens(tokens, tokens))
    content = layer.norms[1](layer.norms[0](queries))
    torch.testing.assert_close(found, layer.norms[2](content + layer.feedforward(content)))


def test_boxes_that_differ_in_velocity_alone_cost_the_same() -> None:
    """As in all recipes; the recorded matchings say with_velocity themselves."""
    boxes = torch.tensor([[0.0] * 3 + [1.0] * 3 + [0.0] * 3])
    codes, faster = encode_boxes(boxes), boxes.clone()
    faster[:, 7:] = 20.0
    logits, labels = torch.zeros(1, 10), torch.tensor([0])
    for with_velocity in (False, True):
        matcher = HungarianMatcher(with_velocity=with_velocity)
        costs = [matcher.cost(logits, codes, b, labels) for b in (boxes, faster)]
        assert torch.equal(*costs) == (not with_velocity)
    assert HungarianMatcher() == HungarianMatcher(with_velocity=False)


def test_wrong_settings_are_named() -> None:
    decoder = TemporalDecoder(8, 2, 8, 1)
    encoder = ImagePositionEncoder(8, (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0), 32)
    with pytest.raises(ValueError, match=r"num_remembered \(999\)"):
        StreamPETRHead(8, decoder, encoder, num_remembered=999)
    with pytest.raises(ValueError, match=r"num_heads \(3\) must divide embed_dim \(8\)"):
        TemporalDecoder(8, 3, 8, 1)
    with pytest.raises(ValueError, match="kernel 'flash' is unknown; use one of"):
        TemporalDecoder(8, 2, 8, 1, kernel="flash")
    with pytest.raises(ValueError, match="depth_num must be at least 30"):
        ImagePositionEncoder(8, (0.0,) * 6, depth_num=16)
