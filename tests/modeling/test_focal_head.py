"""The 2D head and its losses: published values, and pictures at the edge of what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from streampetr_vit.modeling.criterion.assignment import assign
from streampetr_vit.modeling.criterion.center_heatmap import center_heatmaps
from streampetr_vit.modeling.criterion.image_loss import ImageLoss
from streampetr_vit.modeling.criterion.image_matcher import ImageMatcher, ImageTargets
from streampetr_vit.modeling.criterion.losses import (
    focal_cost,
    gaussian_focal_loss_sum,
    quality_focal_loss_sum,
)
from streampetr_vit.modeling.heads.focal import FocalHead
from streampetr_vit.modeling.heads.outputs import ImageOutput
from streampetr_vit.modeling.ops.rectangles import (
    center_form_from_corners,
    corners_from_center_form,
    giou,
    iou,
)
from streampetr_vit.structures import Boxes2D

SIZE = (48, 64)  # 3 x 4 cells of stride 16
TOKENS = 12


def objects(*rows: Sequence[float]) -> Boxes2D:
    """Rows of x1, y1, x2, y2, centre x, centre y, label."""
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)
    labels = values[:, 6].long()
    return Boxes2D(values[:, :4], values[:, 4:6], labels, torch.full((len(rows),), 20.0))


def small_head(seed: int = 0) -> FocalHead:
    torch.manual_seed(seed)
    return FocalHead(8, embed_dim=16, num_groups=4)


def predict(head: FocalHead, images: int) -> ImageOutput:
    generator = torch.Generator().manual_seed(images)
    return head(torch.randn(1, images, 8, 3, 4, generator=generator), SIZE)


def losses_of(
    output: ImageOutput, targets: Sequence[Boxes2D], criterion: ImageLoss | None = None
) -> dict[str, Tensor]:
    criterion = criterion or ImageLoss()
    pairs = assign(criterion.costs(output, targets, SIZE))
    return criterion.losses(output, targets, SIZE, pairs)


def test_overlap_anchors() -> None:
    a, b = torch.tensor([0.0, 0, 10, 10]), torch.tensor([5.0, 5, 15, 15])
    assert float(iou(a, b)) == pytest.approx(0.1428571, abs=1e-6)
    assert float(giou(a, b)) == pytest.approx(-0.0793651, abs=1e-6)
    point = torch.tensor([3.0, 3, 3, 3])
    assert float(iou(point, point)) == 0 and float(giou(point, point)) == 0
    assert giou(a.expand(4, 1, 4), b.expand(3, 4)).shape == (4, 3)


def test_box_forms_are_inverse() -> None:
    corners = torch.tensor([[1.0, 2, 5, 10], [3, 3, 3, 3]])
    form = center_form_from_corners(corners)
    assert form.tolist() == [[3, 6, 4, 8], [3, 3, 0, 0]]
    assert torch.equal(corners_from_center_form(form), corners)


def test_quality_focal_anchor() -> None:
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    quality = torch.tensor([[0.7, 0.0], [0.0, 0.0]])  # the second token is background
    assert 2 * float(quality_focal_loss_sum(logits, quality)) == pytest.approx(3.6995499, rel=1e-6)


def test_gaussian_focal_anchor() -> None:
    probability, heatmap = torch.tensor([0.9, 0.3, 0.2]), torch.tensor([1.0, 0.5, 0.0])
    total = float(gaussian_focal_loss_sum(probability, heatmap))
    assert total == pytest.approx(0.01198564, rel=1e-5)


def test_focal_cost_anchor() -> None:
    cost = 2 * focal_cost(torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(cost, torch.tensor([-0.5323, 0.3169]), atol=5e-5, rtol=0)


def test_untrained_head_predicts_cells_and_rare_objects() -> None:
    with torch.no_grad():
        output = predict(small_head(), images=2)
    assert output.logits.shape == (2, TOKENS, 10) and output.centerness.shape == (2, TOKENS, 1)
    corners = corners_from_center_form(output.boxes)
    assert float(corners.min()) > -1e-6 and float(corners.max()) < 1 + 1e-6
    head = small_head()
    for layer in (head.class_logits, head.centerness):
        assert layer.bias.sigmoid().tolist() == pytest.approx([0.01] * len(layer.bias))
    # Without offset the centre of a token is that of its cell, row by row.
    torch.nn.init.zeros_(head.center_offset.weight)
    torch.nn.init.zeros_(head.center_offset.bias)
    pixels = predict(head, images=1).centers[0] * torch.tensor([64.0, 48.0])
    torch.testing.assert_close(pixels[[0, 1, 4]], torch.tensor([[8.0, 8], [24, 8], [8, 24]]))


def test_head_ignores_autocast() -> None:
    head = small_head()
    expected = predict(head, images=2)
    with torch.autocast("cpu", torch.bfloat16):
        found = predict(head, images=2)
    assert torch.equal(found.boxes, expected.boxes) and found.logits.dtype == torch.float32


def test_ranking_is_within_a_stream_and_over_its_cameras() -> None:
    logits = torch.full((4, 3, 2), -5.0)  # two streams of two cameras
    logits[1, 2, 0], logits[0, 0, 1] = 3.0, 2.0
    logits[2, 1, 1], logits[3, 0, 0] = 1.0, 4.0
    centerness = torch.zeros(4, 3, 1)
    centerness[3, 0] = -9.0
    output = ImageOutput(logits, torch.zeros(4, 3, 4), torch.zeros(4, 3, 2), centerness)
    head = small_head()
    best = head.token_indexes(output, 2, 0.4)  # of 6 tokens 2.4, rounded down
    assert best.shape == (2, 2)
    assert best[0].tolist() == [5, 0] and best[1, 0] == 1
    assert head.token_indexes(output, 2, 0.01).shape == (2, 1)
    everything = head.token_indexes(output, 2, 1.0)
    assert everything.sort(dim=1).values.tolist() == [list(range(6))] * 2


@pytest.mark.parametrize("targets", [[objects(), objects()], [objects()]])
def test_no_object_in_any_picture(targets: list[Boxes2D]) -> None:
    head = small_head()
    losses = losses_of(predict(head, len(targets)), targets)
    for name in ("enc_loss_bbox", "enc_loss_iou", "centers2d_losses"):
        assert losses[name].item() == 0
    assert all(value.isfinite() and value.dim() == 0 for value in losses.values())
    assert losses["enc_loss_cls"].item() > 0 and losses["centerness_losses"].item() > 0
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_a_picture_without_objects_counts_as_background_only() -> None:
    output = predict(small_head(), images=2)
    one = objects((4, 4, 30, 28, 17, 15, 3))
    both = losses_of(output, [one, objects()])
    first = losses_of(ImageOutput(*(value[:1] for value in vars(output).values())), [one])
    for name in ("enc_loss_bbox", "enc_loss_iou", "centers2d_losses"):
        torch.testing.assert_close(both[name], first[name])
    assert both["enc_loss_cls"] > first["enc_loss_cls"]
    assert both["centerness_losses"] > first["centerness_losses"]


def test_more_objects_than_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(TOKENS + 5, 2, generator=generator) * 30
    corners = torch.cat((low, low + 10), dim=1)
    crowd = Boxes2D(corners, low + 5, torch.arange(TOKENS + 5) % 10, torch.ones(TOKENS + 5))
    output = predict(small_head(), images=2)
    targets = [objects((4, 4, 30, 28, 17, 15, 3)), crowd]
    criterion = ImageLoss()
    pairs = assign(criterion.costs(output, targets, SIZE))
    assert [pair.shape[0] for pair in pairs] == [1, TOKENS]
    seen: list[Tensor] = []

    def reduce_mean(value: Tensor) -> Tensor:
        seen.append(value)
        return value * 2

    losses = criterion.losses(output, targets, SIZE, pairs)
    averaged = ImageLoss(reduce_mean=reduce_mean).losses(output, targets, SIZE, pairs)
    assert [value.tolist() for value in seen] == [1 + TOKENS]
    for name, value in losses.items():
        local = name in ("enc_loss_cls", "enc_loss_iou")  # divided by this rank's pairs
        torch.testing.assert_close(averaged[name], value if local else value / 2)


def test_objects_without_area_and_on_the_border() -> None:
    head = small_head()
    targets = [
        objects((10, 10, 10, 10, 10, 10, 0), (0, 0, 64, 48, 64, 48, 1), (0, 0, 9, 9, 0, 0, 9)),
        objects((5, 5, 5, 30, 40, 20, 2)),  # a line, its centre outside
    ]
    output = predict(head, images=2)
    costs = ImageMatcher().costs(output, targets, SIZE)
    assert [tuple(cost.shape) for cost in costs] == [(TOKENS, 3), (TOKENS, 1)]
    losses = losses_of(output, targets)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_cost_of_a_pair_by_hand() -> None:
    """A token that predicts (0, 0, 16, 12) px and centre (16, 24), an object (0, 0, 32, 24)."""
    zeros = torch.zeros(1, 1, 10)
    boxes, centers = torch.tensor([[[0.125, 0.125, 0.25, 0.25]]]), torch.tensor([[[0.25, 0.5]]])
    output = ImageOutput(zeros, boxes, centers, zeros[..., :1])
    (cost,) = ImageMatcher().costs(output, [objects((0, 0, 32, 24, 32, 24, 3))], SIZE)
    focal = 0.25 * 0.25 * math.log(2) - 0.75 * 0.25 * math.log(2)
    # Boxes differ by 1/8, 1/8, 1/4, 1/4; one is a quarter of the other; centres by 1/4 and 0.
    assert cost.item() == pytest.approx(2 * focal + 5 * 0.75 - 2 * 0.25 + 10 * 0.25, rel=1e-5)


def test_certain_but_wrong_centerness_has_a_finite_loss() -> None:
    output = predict(small_head(), images=1)
    certain = torch.full((1, TOKENS, 1), 30.0)
    wrong = ImageOutput(output.logits, output.boxes, output.centers, certain)
    each = -math.log(1e-4) * (1 - 1e-4) ** 2  # the probability is cut at 1 - 1e-4
    losses = losses_of(wrong, [objects()])
    assert losses["centerness_losses"].item() == pytest.approx(TOKENS * each, rel=1e-4)


def test_bad_predictions_cost_a_hundred() -> None:
    output = predict(small_head(), images=1)
    output.boxes.data[0, 3] = math.nan
    output.centers.data[0, 5] = math.inf
    (cost,) = ImageMatcher().costs(output, [objects((4, 4, 30, 28, 17, 15, 3))], SIZE)
    assert cost[3].item() == 100 and cost[5].item() == 100 and cost.isfinite().all()


def test_perfect_boxes_leave_only_what_scores_cost() -> None:
    target = objects((8, 8, 40, 40, 24, 24, 4))
    output = predict(small_head(), images=1)
    box = center_form_from_corners(target.corners / torch.tensor([64.0, 48, 64, 48]))
    center = target.centers / torch.tensor([64.0, 48])
    perfect = ImageOutput(
        output.logits,
        box.expand(1, TOKENS, 4),
        center.expand(1, TOKENS, 2),
        output.centerness,
    )
    losses = losses_of(perfect, [target])
    for name in ("enc_loss_bbox", "enc_loss_iou", "centers2d_losses"):
        assert losses[name].item() == pytest.approx(0, abs=1e-6)
    scores = torch.zeros(TOKENS, 10)
    token = int(assign(ImageMatcher().costs(perfect, [target], SIZE))[0][0, 0])
    scores[token, 4] = 1.0  # the quality is the IoU
    expected = 2 * quality_focal_loss_sum(output.logits[0], scores)
    torch.testing.assert_close(losses["enc_loss_cls"], expected)


def test_heatmap_object_by_object() -> None:
    """Against a loop over objects and cells; a centre at the right border has no peak."""
    rows = [
        (0, 0, 64, 48, 30, 20, 0),  # its nearest side is 20 px away: radius 2
        (20, 20, 24, 24, 60, 40, 1),  # centre outside its box: radius 1
        (50, 0, 64, 10, 64, 5, 2),  # at the right border
    ]
    expected = torch.zeros(2, 3, 4)
    for x1, y1, x2, y2, cx, cy, _ in rows:
        radius = max(1, math.ceil(min(cx - x1, cy - y1, x2 - cx, y2 - cy) / 16))
        for y in range(3):
            for x in range(4):
                dx, dy = x - int(cx / 16), y - int(cy / 16)
                if max(abs(dx), abs(dy)) <= radius:
                    value = math.exp(-(dx**2 + dy**2) / (2 * ((2 * radius + 1) / 6) ** 2))
                    expected[1, y, x] = max(float(expected[1, y, x]), value)
    targets = ImageTargets.join([objects(), objects(*rows)], SIZE)
    found = center_heatmaps(targets, num_images=2, stride=16)
    torch.testing.assert_close(found, expected)
    assert (found[1] == 1).nonzero().tolist() == [[1, 1], [2, 3]]


def test_wrong_image_size_is_named() -> None:
    output = predict(small_head(), images=1)
    targets = [objects()]
    pairs = assign(ImageLoss().costs(output, targets, SIZE))
    with pytest.raises(ValueError, match=r"12 tokens .* \(48, 80\) .* 3 x 5 cells"):
        ImageLoss().losses(output, targets, (48, 80), pairs)
