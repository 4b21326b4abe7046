"""What a head says of its own boxes: how it ranks them, what it learns, what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from synchronisation import NoSynchronisation
from tiny_detector import last_layer, make_detector, make_repdetr3d, make_sample, with_boxes
from torch import Tensor, nn

from streampetr_vit.inference import Stream
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.criterion.quality_loss import QualityLoss
from streampetr_vit.modeling.decoder.decoder import SamplingDecoder
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.box_coding import decode_padded, encode_boxes
from streampetr_vit.modeling.heads.quality import QualityBranch
from streampetr_vit.modeling.heads.repdetr3d import RepDETR3DHead
from streampetr_vit.structures import Frame, PaddedDetections

RANGE = torch.tensor([-51.2, -51.2, -5.0, 51.2, 51.2, 3.0])
BOX = torch.tensor([[4.0, 2.0, 1.0, 4.0, 2.0, 1.5, 0.3, 0.0, 0.0]])
both_heads = pytest.mark.parametrize("make", [make_detector, make_repdetr3d])
Make = Callable[..., StreamPETR]


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


# The branch in the head


def test_a_new_branch_says_one_half_of_every_box() -> None:
    logits = QualityBranch(8)(torch.randn(2, 1, 5, 8), torch.randn(1, 5, 8))
    assert logits.shape == (2, 1, 5, 2) and not logits.any()


def test_a_branch_learns_from_states_and_positions() -> None:
    branch = QualityBranch(8)
    nn.init.normal_(branch.logits.weight)
    states, position = torch.randn(2, 1, 5, 8), torch.randn(1, 5, 8)
    both = branch(states, position)
    assert not torch.allclose(both, branch(states, torch.zeros(1, 5, 8)))
    assert not torch.allclose(both, branch(torch.zeros(2, 1, 5, 8), position))
    # Of a query by itself: others do not matter.
    assert torch.allclose(both[:, :, 3:4], branch(states[:, :, 3:4], position[:, 3:4]), atol=1e-6)


def test_the_other_weights_and_the_next_draws_are_those_of_a_head_without() -> None:
    def drawn(**options: bool) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(0)
        decoder = SamplingDecoder(32, 2, 32, 1, num_levels=1, num_points=2, num_groups=2)
        head = RepDETR3DHead(decoder, num_queries=8, num_propagated=4, num_remembered=4, **options)
        return head.state_dict(), torch.rand(3)

    (without, next_without), (with_it, next_with) = drawn(), drawn(with_quality=True)
    assert torch.equal(next_without, next_with)
    assert all(torch.equal(with_it[name], value) for name, value in without.items())
    more = with_it.keys() - without.keys()
    assert more and all(name.startswith("quality_branch.") for name in more)
    # Its own start is of the same seed, and not the same number everywhere.
    assert with_it["quality_branch.layers.0.weight"].unique().numel() > 1
    again, _ = drawn(with_quality=True)
    assert all(torch.equal(with_it[name], again[name]) for name in more)


def test_a_memory_by_quality_needs_a_quality() -> None:
    with pytest.raises(ValueError, match="the head has no quality: set remember_by_quality=False"):
        make_detector(remember_by_quality=True)
    without_memory = dict(num_propagated=0, memory_length=0, num_remembered=0)
    with pytest.raises(ValueError, match="nothing is remembered"):
        make_detector(with_quality=True, remember_by_quality=True, **without_memory)


@both_heads
@pytest.mark.parametrize("remember", [False, True])
def test_a_new_branch_ranks_and_remembers_as_without(make: Make, remember: bool) -> None:
    """So a released checkpoint detects the same until its new branch has learned."""
    plain = make().eval()
    detector = make(with_quality=True, remember_by_quality=remember).eval()
    detector.load_state_dict(plain.state_dict(), strict=False)
    detector.head.quality_branch = QualityBranch(32)
    streams = Stream(plain), Stream(detector)
    for time in range(3):
        wanted, found = (stream([make_sample(time)])[0] for stream in streams)
        assert len(wanted) > 1
        for name in ("boxes", "labels", "queries", "lineages"):
            assert torch.equal(getattr(wanted, name), getattr(found, name)), name
        assert torch.equal(wanted.scores / 2, found.scores)


@both_heads
def test_the_quality_is_of_the_real_queries(make: Make) -> None:
    """Denoising queries, which come first, have none, and theirs is not taken for another's."""
    detector = make(with_quality=True).train()
    frame, sample = Frame.collate([make_sample(1)]), make_sample(1)
    head, memory = detector.head, detector.empty_memory(1)
    boxes, labels = [sample.gt_boxes], [sample.gt_labels]
    noised = detector.denoising.make(boxes, labels, head.point_cloud_range, 10)
    output, _ = detector.step(frame, memory, noised)
    assert output.quality.shape == (2, 1, 12, 2)
    position = head.make_queries(head.align_memory(memory, frame), noised).position
    assert position.shape[1] > 12
    wanted = head.quality_branch(output.states, position[:, -12:])
    torch.testing.assert_close(output.quality, wanted)
    assert output.quality.std() > 0.01


@pytest.mark.parametrize("remember", [False, True])
def test_the_memory_takes_the_best_by_class_or_by_class_and_centerness(remember: bool) -> None:
    detector = make_detector(with_quality=True, remember_by_quality=remember).eval()
    nn.init.normal_(detector.head.quality_branch.logits.weight, std=3.0)
    frame = Frame.collate([make_sample(0)])
    with torch.no_grad():
        output, _ = detector.step(frame, detector.empty_memory(1))
    by_class = output.logits[-1].sigmoid().amax(-1)
    by_both = by_class * output.quality[-1][..., 0].sigmoid()
    orders = [worth.topk(4, dim=1).indices for worth in (by_class, by_both)]
    assert not torch.equal(*orders)
    assert torch.equal(output.remembered, orders[remember])


@both_heads
def test_nothing_waits_for_the_device(make: Make) -> None:
    detector = make(with_quality=True, remember_by_quality=True).eval()
    frame, memory = Frame.collate([make_sample(0)]), detector.empty_memory(1)
    code = detector.encode_rig(frame.rig, detector.padded_size(frame.image_size))
    detector.detect(frame, memory, code)  # the first frame of a size makes the ViT's tables
    with NoSynchronisation():
        detector.detect(frame, memory, code)


# Detections


def decoded(score_threshold: float | None = None) -> PaddedDetections:
    """Two of three queries of classes 3, 5, 7, that are the surer of it the worse their box."""
    logits, boxes = torch.full((1, 3, 10), -20.0), BOX.repeat(3, 1)
    boxes[:, 0] = torch.arange(3.0)
    quality = torch.zeros(1, 1, 3, 2)
    rows = zip((3, 5, 7), (0.9, 0.8, 0.7), (0.1, 0.9, 0.5), strict=True)
    for query, (label, probability, centerness) in enumerate(rows):
        logits[0, query, label] = logit(probability)
        quality[0, 0, query] = torch.tensor([logit(centerness), -9.0])  # the yawness ranks nothing
    output = replace(last_layer(logits, encode_boxes(boxes)[None]), quality=quality)
    output = replace(output, lineage=torch.tensor([[10, 11, 12]]))
    return decode_padded(output, 2, RANGE, score_threshold)


def test_detections_are_chosen_by_class_and_sorted_by_class_and_centerness() -> None:
    found = decoded()
    # 0.9 * 0.1 and 0.8 * 0.9; the third, 0.7 * 0.5, is not among the two best by class.
    torch.testing.assert_close(found.scores, torch.tensor([[0.72, 0.09]]))
    assert found.labels.tolist() == [[5, 3]] and found.queries.tolist() == [[1, 0]]
    assert found.lineages.tolist() == [[11, 10]] and found.boxes[0, :, 0].tolist() == [1, 0]
    assert found.valid.all()


@pytest.mark.parametrize(
    ("threshold", "valid"), [(0.05, [1, 1]), (0.75, [1, 1]), (0.85, [0, 1]), (0.95, [0, 0])]
)
def test_the_threshold_is_one_of_the_class_score(threshold: float, valid: list[int]) -> None:
    assert decoded(threshold).valid[0].int().tolist() == valid


# Losses


def losses_of(
    quality: Tensor, error: Tensor, label: int = 0, criterion: QualityLoss | None = None
) -> dict[str, Tensor]:
    """Of one query and `BOX`, from which the query's box differs by `error` (9,)."""
    output = last_layer(torch.zeros(1, 1, 10), encode_boxes(BOX + error)[None])
    output = replace(output, quality=quality.view(1, 1, 1, 2))
    loss = DetectionLoss(quality=criterion or QualityLoss())
    pairs = [torch.zeros(1, 1, 2, dtype=torch.long)]
    return loss.losses(output, [BOX], [torch.tensor([label])], pairs)


def error_of(center: tuple[float, float, float] = (0.0, 0.0, 0.0), yaw: float = 0.0) -> Tensor:
    return torch.tensor([*center, 0.0, 0.0, 0.0, yaw, 0.0, 0.0])


def test_centerness_by_hand() -> None:
    quality = torch.tensor([math.log(3.0), 0.0])  # a centerness of 3/4
    target = math.exp(-3.0)  # 3 m: (1, 2, 2)
    wanted = -target * math.log(0.75) - (1 - target) * math.log(0.25)
    losses = losses_of(quality, error_of((1.0, -2.0, 2.0)))
    assert float(losses["loss_centerness"]) == pytest.approx(wanted)
    losses = losses_of(quality, error_of((1.0, -2.0, 2.0)), criterion=QualityLoss(2.0, 3.0))
    assert float(losses["loss_centerness"]) == pytest.approx(2 * wanted)
    assert float(losses["loss_yawness"]) == pytest.approx(3 * 0.5**2 * math.log(2.0))


FORWARD, BACKWARD = -(0.25**2) * math.log(0.75), -(0.75**2) * math.log(0.25)


@pytest.mark.parametrize(
    ("yaw", "label", "wanted"),
    [
        (0.0, 0, FORWARD),
        (1.5, 0, FORWARD),
        (-1.5, 0, FORWARD),
        (1.6, 0, BACKWARD),
        (math.pi, 0, BACKWARD),
        (2 * math.pi + 0.1, 0, FORWARD),
        (math.pi, 5, FORWARD),  # half a turn of a barrier
        (1.6, 5, FORWARD),
        (math.pi, 6, BACKWARD),
    ],
)
def test_yawness_by_hand(yaw: float, label: int, wanted: float) -> None:
    quality = torch.tensor([0.0, math.log(3.0)])  # a yawness of 3/4
    losses = losses_of(quality, error_of(yaw=yaw), label, QualityLoss(symmetric_labels=[2, 5]))
    assert float(losses["loss_yawness"]) == pytest.approx(wanted)


def test_the_length_of_the_predicted_sine_and_cosine_does_not_matter() -> None:
    codes, labels = encode_boxes(BOX + error_of(yaw=1.5))[None], torch.zeros(1, 1).long()
    quality = torch.tensor([[[0.0, math.log(3.0)]]])
    short, long = codes.clone(), codes.clone()
    short[..., 6:8] *= 0.01
    long[..., 6:8] *= 5
    for scaled in (short, long):
        _, yawness = QualityLoss().sums(quality, scaled, BOX[None], labels)
        assert float(yawness) == pytest.approx(FORWARD)


def test_the_gradient_leads_to_the_target_and_moves_no_box() -> None:
    quality = torch.tensor([[[math.log(3.0), math.log(3.0)]]], requires_grad=True)
    codes = encode_boxes(BOX + error_of((0.6, 0.8, 0.0)))[None].requires_grad_()
    sums = QualityLoss().sums(quality, codes, BOX[None], torch.zeros(1, 1).long())
    sum(sums).backward()
    assert codes.grad is None
    # Of the cross-entropy: probability minus target, which is 0 just there.
    assert float(quality.grad[0, 0, 0]) == pytest.approx(0.75 - math.exp(-1.0))
    assert float(quality.grad[0, 0, 1]) < 0  # the more forward, the better


@pytest.mark.parametrize("place", [0, 2, 3, 6])
def test_boxes_that_are_not_finite_do_not_count(place: int) -> None:
    boxes = BOX.repeat(1, 2, 1)
    boxes[0, 1, place] = math.nan
    codes, labels = encode_boxes(BOX + error_of((1.0, 0.0, 0.0))).repeat(1, 2, 1), torch.tensor(0)
    quality = torch.ones(1, 2, 2, requires_grad=True)
    both = QualityLoss().sums(quality, codes, boxes, labels.expand(1, 2))
    first = QualityLoss().sums(quality[:, :1], codes[:, :1], boxes[:, :1], labels.expand(1, 1))
    for found, wanted in zip(both, first, strict=True):
        assert torch.equal(found, wanted) and wanted > 0
    sum(both).sum().backward()
    assert quality.grad[0, 0].all() and not quality.grad[0, 1].any()


def test_a_box_of_unknown_velocity_counts() -> None:
    boxes = BOX[None].clone()
    boxes[..., 7:] = math.nan
    sums = QualityLoss().sums(torch.zeros(1, 1, 2), encode_boxes(BOX)[None], boxes, torch.zeros(1))
    assert all(float(value) > 0 for value in sums)


def test_every_layer_is_told_of_its_own_boxes_and_divided_by_the_mean_of_ranks() -> None:
    """Two layers that pair other queries, and three pairs on the mean rank."""
    boxes = torch.stack((BOX[0], BOX[0] + error_of((0.0, 10.0, 0.0))))
    codes = encode_boxes(boxes)[torch.tensor([[0, 1], [1, 0]])][:, None]  # (L, B, Q, 10)
    quality = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1).repeat(2, 1, 1, 2)
    output = replace(
        last_layer(torch.zeros(1, 2, 10), codes[0]),
        logits=torch.zeros(2, 1, 2, 10),
        codes=codes,
        quality=quality,
    )
    pairs = [torch.tensor([[[0, 0], [1, 1]], [[0, 1], [1, 0]]])]
    loss = DetectionLoss(reduce_mean=lambda counts: counts + 1)
    losses = loss.losses(output, [boxes], [torch.tensor([0, 0])], pairs)
    right = sum(-math.log(1 / (1 + math.exp(-value))) for value in (1.0, 2.0)) / 3
    assert float(losses["loss_centerness"]) == pytest.approx(right)
    assert float(losses["d0.loss_centerness"]) == pytest.approx(right)
    crossed = [torch.tensor([[[0, 1], [1, 0]], [[0, 1], [1, 0]]])]
    losses = loss.losses(output, [boxes], [torch.tensor([0, 0])], crossed)
    assert float(losses["loss_centerness"]) == pytest.approx(right)
    assert float(losses["d0.loss_centerness"]) > 3 * right  # 10 m off, and sure of it


# Training


@both_heads
def test_training_reaches_every_parameter_with_and_without_boxes(make: Make) -> None:
    detector = make(with_quality=True, remember_by_quality=True).train()
    names = []
    for sample in (make_sample(0), with_boxes(make_sample(1), 0)):
        detector.zero_grad(set_to_none=True)
        losses, _ = detector.losses([sample])
        names.append(list(losses))
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in detector.named_parameters()}
        assert all(value.isfinite() for value in losses.values())
        assert all(g is not None and g.isfinite().all() for g in gradients.values())
        learned = [bool(g.any()) for name, g in gradients.items() if "quality_branch" in name]
        assert len(learned) == 10 and all(value == bool(len(sample.gt_boxes)) for value in learned)
    assert names[0] == names[1]
    assert not losses["loss_centerness"].any() and not losses["d0.loss_yawness"].any()
    plain = make().train().losses([make_sample(0)])[0]
    more = {"loss_centerness", "loss_yawness", "d0.loss_centerness", "d0.loss_yawness"}
    assert set(names[0]) - set(plain) == more and set(plain) <= set(names[0])


def test_a_detector_learns_how_good_its_boxes_are() -> None:
    """On one frame, with the boxes held still, the branch alone comes to tell good from bad."""
    detector = make_detector(with_quality=True).eval()
    for name, parameter in detector.named_parameters():
        parameter.requires_grad_("quality_branch" in name)
    trained = [p for p in detector.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    first = None
    for _ in range(60):
        torch.manual_seed(0)
        losses, _ = detector.losses([make_sample(0)])
        loss = losses["loss_centerness"] + losses["loss_yawness"]
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * first
