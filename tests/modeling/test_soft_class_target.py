"""The class target that follows how near a box is to its object, on cases checked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_detector import last_layer, make_detector, make_repdetr3d, make_sample, with_boxes
from torch import Tensor

from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.criterion.losses import (
    closeness,
    sigmoid_focal_loss_sum,
    soft_focal_loss_sum,
)
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.box_coding import encode_boxes
from streampetr_vit.modeling.heads.denoising_queries import DenoisingQueries

HARD = DetectionLoss(class_weight=1.0, box_weight=0.0)
SOFT = replace(HARD, soft_class_target=True)
CLASSES = 3


def soft_loss(probability: float, target: float) -> float:
    """Of one logit, written out."""
    entropy = -target * math.log(probability) - (1 - target) * math.log(1 - probability)
    return entropy * (0.75 - 0.5 * target) * (target - probability) ** 2


def boxes_at(*centers: tuple[float, float]) -> Tensor:
    return torch.tensor([[x, y, 1.0, 4.0, 2.0, 1.5, 0.3, 0.0, 0.0] for x, y in centers])


def test_the_soft_focal_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # probabilities 1/2, 3/4; 1/2, 1/2
    loss = soft_focal_loss_sum(logits, torch.tensor([1, 2]), torch.tensor([0.6, 0.9]))
    # The second row is background: its quality is not read.
    wanted = soft_loss(0.75, 0.6) + 3 * soft_loss(0.5, 0.0)
    assert float(loss) == pytest.approx(wanted)


def test_targets_of_one_give_the_focal_loss() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 7, CLASSES) * 3, torch.randint(0, CLASSES + 1, (2, 7))
    found = soft_focal_loss_sum(logits, labels, torch.ones(2, 7))
    torch.testing.assert_close(found, sigmoid_focal_loss_sum(logits, labels))


def test_closeness_by_hand() -> None:
    """Metres in the ground plane; the nearest row, 1 m off, becomes 1."""
    predicted = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0]])
    found = closeness(predicted, torch.zeros(3, 2))
    torch.testing.assert_close(found, torch.tensor([0.0, -4.0, -1.0]).exp())


def test_no_rows_are_near_nothing() -> None:
    """As where rays leave out every box: there are denoising slots, and nothing in them."""
    assert closeness(torch.empty(2, 0, 2), torch.empty(0, 2)).shape == (2, 0)


def test_closeness_is_finite_where_all_exponentials_are_zero_and_where_a_place_is_unknown() -> None:
    far = closeness(torch.tensor([[400.0, 0.0], [401.0, 0.0]]), torch.zeros(2, 2))
    torch.testing.assert_close(far, torch.tensor([1.0, math.exp(-1.0)]))
    centers = torch.tensor([[math.nan, 0.0], [5.0, 0.0]])
    found = closeness(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), centers)
    torch.testing.assert_close(found, torch.tensor([1.0, math.exp(-2.0)]))


def losses_of(
    loss: DetectionLoss, predicted: Tensor, boxes: list[Tensor], logit: float = 0.0
) -> tuple[dict[str, Tensor], Tensor]:
    """Of (B, Q, 9) predicted boxes, of which the first is matched, with class 1; and their codes.

    The height differs by half a metre, which is no error in the ground plane.
    """
    codes = encode_boxes(predicted)
    codes[..., 2] += 0.5
    codes.requires_grad_()
    output = last_layer(torch.full((*codes.shape[:2], CLASSES), logit), codes)
    pairs = [torch.zeros(1, 1, 2, dtype=torch.long)] * len(boxes)
    labels = [torch.tensor([1])] * len(boxes)
    return loss.losses(output, boxes, labels, pairs), codes


def test_the_loss_of_matched_and_unmatched_rows_by_hand() -> None:
    # 2 m off; 0.5 m from the origin, where unmatched rows have their target; 5 m from it.
    predicted = boxes_at((12.0, 7.0), (0.3, 0.4), (3.0, 4.0))[None]
    losses, _ = losses_of(SOFT, predicted, [boxes_at((10.0, 7.0))], logit=math.log(3.0))
    target = math.exp(-2.0) / math.exp(-0.5)
    wanted = soft_loss(0.75, target) + 8 * soft_loss(0.75, 0.0)
    assert float(losses["loss_cls"]) == pytest.approx(wanted)


def test_the_maximum_is_over_all_rows_of_the_batch() -> None:
    near, far = boxes_at((10.0, 7.0), (9.0, 9.0)), boxes_at((13.0, 7.0), (9.0, 9.0))
    losses, _ = losses_of(SOFT, torch.stack((near, far)), [boxes_at((10.0, 7.0))] * 2)
    wanted = soft_loss(0.5, 1.0) + soft_loss(0.5, math.exp(-3.0)) + 10 * soft_loss(0.5, 0.0)
    assert float(losses["loss_cls"]) == pytest.approx(wanted / 2)  # two positives divide
    alone, _ = losses_of(SOFT, far[None], [boxes_at((10.0, 7.0))])
    wanted = soft_loss(0.5, 1.0) + 5 * soft_loss(0.5, 0.0)
    assert float(alone["loss_cls"]) == pytest.approx(wanted)


def test_each_layer_has_its_own_maximum() -> None:
    near, far = (encode_boxes(boxes_at(xy))[None] for xy in ((11.0, 7.0), (14.0, 7.0)))
    output = last_layer(torch.zeros(1, 1, CLASSES), near)
    output = replace(output, logits=torch.zeros(2, 1, 1, CLASSES), codes=torch.stack((near, far)))
    pairs, labels = [torch.zeros(2, 1, 2, dtype=torch.long)], [torch.tensor([1])]
    losses = SOFT.losses(output, [boxes_at((10.0, 7.0))], labels, pairs)
    wanted = soft_loss(0.5, 1.0) + 2 * soft_loss(0.5, 0.0)
    assert float(losses["loss_cls"]) == pytest.approx(wanted)
    assert float(losses["d0.loss_cls"]) == pytest.approx(wanted)


def test_a_box_on_its_object_trains_as_with_the_hard_target() -> None:
    predicted, boxes = boxes_at((10.0, 7.0), (5.0, 5.0))[None], [boxes_at((10.0, 7.0))]
    (soft, _), (hard, _) = (losses_of(loss, predicted, boxes, 1.3) for loss in (SOFT, HARD))
    torch.testing.assert_close(soft["loss_cls"], hard["loss_cls"])


def test_the_class_loss_moves_no_box() -> None:
    losses, codes = losses_of(SOFT, boxes_at((12.0, 7.0), (0.3, 0.4))[None], [boxes_at((10, 7))])
    sum(losses.values()).backward()
    assert codes.grad is not None and not codes.grad.any()


def test_denoising_rows_have_their_own_boxes_and_their_own_maximum() -> None:
    """Three copies: 1 m off, 3 m off, and a background copy that is the nearest by far."""
    boxes = boxes_at((10.0, 7.0)).repeat(3, 1)
    predicted = boxes_at((11.0, 7.0), (10.0, 4.0), (10.0, 7.25))
    noised = DenoisingQueries(
        reference_points=torch.zeros(1, 3, 3),
        labels=torch.tensor([1, 1, CLASSES]),
        boxes=boxes,
        stream=torch.zeros(3, dtype=torch.long),
        slot=torch.arange(3),
        groups=3,
    )
    output = replace(
        last_layer(torch.zeros(1, 1, CLASSES), encode_boxes(boxes[None, :1])),
        denoising_logits=torch.zeros(1, 1, 3, CLASSES),
        denoising_codes=encode_boxes(predicted)[None, None],
    )
    pairs, labels = [torch.zeros(1, 1, 2, dtype=torch.long)], [torch.tensor([1])]
    losses = SOFT.losses(output, [boxes[:1]], labels, pairs, noised)
    wanted = sum(soft_loss(0.5, math.exp(0.25 - error)) for error in (1.0, 3.0))
    wanted += 7 * soft_loss(0.5, 0.0)
    # The divisor is that of the hard target: 3 copies expect less than one positive.
    assert float(losses["dn_loss_cls"]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("make", [make_detector, make_repdetr3d])
def test_training_with_it_reaches_every_parameter(make: Callable[..., StreamPETR]) -> None:
    detector = make(with_quality=True).train()
    hard, soft = detector.criterion, None
    for sample in (make_sample(0), with_boxes(make_sample(1), 0)):
        detector.criterion = hard
        torch.manual_seed(1)
        before, _ = detector.losses([sample])
        soft = replace(hard, detection=replace(hard.detection, soft_class_target=True))
        detector.criterion = soft
        detector.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        losses, _ = detector.losses([sample])
        sum(losses.values()).backward()
        gradients = [p.grad for p in detector.parameters()]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert all(value.isfinite() for value in losses.values()) and losses.keys() == before.keys()
        changed = {name for name in losses if not torch.equal(losses[name], before[name])}
        of_class = {"loss_cls", "d0.loss_cls", "dn_loss_cls", "d0.dn_loss_cls"}
        assert changed == (of_class if len(sample.gt_boxes) else set())
