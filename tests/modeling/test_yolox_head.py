"""The 2D head of a feature pyramid and its losses, and pictures at the edge of what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from streampetr_vit.modeling.criterion.losses import square_iou_loss_sum
from streampetr_vit.modeling.criterion.yolox_loss import YOLOXLoss
from streampetr_vit.modeling.heads.outputs import YOLOXOutput
from streampetr_vit.modeling.heads.yolox import YOLOXHead
from streampetr_vit.modeling.ops.rectangles import (
    cell_codes_from_corners,
    corners_from_cell_codes,
    iou,
)
from streampetr_vit.structures import Boxes2D

SIZE = (32, 48)
STRIDES = (8, 16)
CELLS = 4 * 6 + 2 * 3
NAMES = {"enc_loss_cls", "enc_loss_iou", "enc_loss_obj", "enc_loss_bbox", "enc_loss_centers2d"}
FAR = (200.0, 200, 220, 220, 210, 210, 3)


def objects(*rows: Sequence[float]) -> Boxes2D:
    """Rows of x1, y1, x2, y2, centre x, centre y, label."""
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)
    labels = values[:, 6].long()
    return Boxes2D(values[:, :4], values[:, 4:6], labels, torch.full((len(rows),), 20.0))


def small_head(seed: int = 0) -> YOLOXHead:
    torch.manual_seed(seed)
    return YOLOXHead(6, STRIDES, embed_dim=8)


def features(images: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(images)
    sizes = [(SIZE[0] // stride, SIZE[1] // stride) for stride in STRIDES]
    return [torch.randn(1, images, 6, *size, generator=generator).to(dtype) for size in sizes]


def predict(head: YOLOXHead, images: int) -> YOLOXOutput:
    return head(features(images), SIZE)


def losses_of(
    output: YOLOXOutput, targets: Sequence[Boxes2D], criterion: YOLOXLoss | None = None
) -> dict[str, Tensor]:
    return (criterion or YOLOXLoss()).losses(output, targets, SIZE, [])


def test_cell_codes_by_hand_and_their_way_back() -> None:
    priors, strides = torch.tensor([[16.0, 8.0], [0.0, 4.0]]), torch.tensor([8.0, 4.0])
    corners = torch.tensor([[12.0, 8.0, 28.0, 24.0], [-3.0, 2.0, 9.0, 4.0]])
    codes = cell_codes_from_corners(corners, priors, strides)
    expected = torch.tensor([[0.5, 1.0, math.log(2), math.log(2)], [0.75, -0.25, 1.0986, -0.6931]])
    torch.testing.assert_close(codes, expected, atol=5e-5, rtol=0)
    torch.testing.assert_close(corners_from_cell_codes(codes, priors, strides), corners)
    line = cell_codes_from_corners(corners[:1, [0, 1, 0, 3]], priors[:1], strides[:1])
    assert line[0, 2].item() == pytest.approx(math.log(1e-8))


def test_square_iou_anchor() -> None:
    a, b = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 5, 15, 15]])
    assert 5 * float(square_iou_loss_sum(iou(a, b))) == pytest.approx(4.8979592, rel=1e-6)
    assert float(square_iou_loss_sum(torch.zeros(3))) == 3 and square_iou_loss_sum(a[:0]) == 0


def test_untrained_head_predicts_rare_objects_in_every_cell() -> None:
    head = small_head()
    output = predict(head, images=2)
    assert output.logits.shape == (2, CELLS, 10) and output.objectness.shape == (2, CELLS, 1)
    assert output.box_codes.shape == (2, CELLS, 4) and output.center_offsets.shape == (2, CELLS, 2)
    # Top left corners, row by row, finest level first.
    assert output.priors[[0, 1, 6, 24, 25, 27]].tolist() == [
        *([0, 0], [8, 0], [0, 8]),
        *([0, 0], [16, 0], [0, 16]),
    ]
    assert output.strides.tolist() == [8.0] * 24 + [16.0] * 6
    for layer in (*head.level_class_logits, *head.level_objectness):
        assert layer.bias.sigmoid().tolist() == pytest.approx([0.01] * len(layer.bias))
    for layer in (*head.level_boxes, *head.level_center_offset):
        assert not layer.bias.any()
        assert layer.weight.abs().max() <= 1 / math.sqrt(8)
    norms = [layer for layer in head.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 2 * 2 * len(STRIDES)
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}


def test_levels_share_no_weights() -> None:
    head = small_head().eval()
    before = predict(head, images=1)
    for name, parameter in head.named_parameters():
        if name.split(".")[1] == "1":
            nn.init.constant_(parameter, 0.3)
    after = predict(head, images=1)
    assert torch.equal(after.logits[:, :24], before.logits[:, :24])
    assert not torch.isclose(after.logits[:, 24:], before.logits[:, 24:]).any()


def test_head_ignores_autocast_and_takes_half_precision() -> None:
    head = small_head().eval()
    expected = predict(head, images=2)
    with torch.autocast("cpu", torch.bfloat16):
        found = predict(head, images=2)
    assert torch.equal(found.box_codes, expected.box_codes)
    assert head(features(2, torch.bfloat16), SIZE).logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("strides", "blocks"), [((), 2), ((8, 0), 2), ((8,), 0)], ids=["none", "zero", "no block"]
)
def test_bad_strides_and_blocks_are_named(strides: tuple[int, ...], blocks: int) -> None:
    with pytest.raises(ValueError, match=r"strides \(\[.*num_blocks \(\d\) at least 1"):
        YOLOXHead(6, strides, embed_dim=8, num_blocks=blocks)


def test_maps_that_do_not_fit_are_named() -> None:
    head = small_head()
    with pytest.raises(ValueError, match=r"\[\(4, 6\)\] do not fit images of \(32, 48\)"):
        head(features(1)[:1], SIZE)
    with pytest.raises(ValueError, match=r"at strides \[8, 16\]"):
        head(features(1)[::-1], SIZE)
    # The 13 columns of 100 pixels at stride 8, and their 6 or 7 at stride 16.
    for columns in (6, 7):
        maps = [torch.zeros(1, 1, 6, 4, 13), torch.zeros(1, 1, 6, 2, columns)]
        assert head.eval()(maps, (32, 100)).logits.shape[1] == 4 * 13 + 2 * columns


def test_nothing_but_broken_predictions() -> None:
    output = predict(small_head(), images=1)
    output.box_codes.data.fill_(math.nan)
    losses = losses_of(output, [objects((4, 4, 30, 28, 17, 15, 3))])
    assert losses["enc_loss_bbox"].isnan() and losses["enc_loss_obj"].isfinite()


@pytest.mark.parametrize("targets", [[objects(), objects()], [objects(FAR)]])
def test_no_object_in_reach_of_any_cell(targets: list[Boxes2D]) -> None:
    head = small_head()
    losses = losses_of(predict(head, len(targets)), targets)
    assert losses.keys() == NAMES and losses["enc_loss_obj"].item() > 0
    assert all(losses[name].item() == 0 for name in NAMES - {"enc_loss_obj"})
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        nothing = name.startswith(("class", "level_class", "level_boxes", "level_center"))
        assert bool(parameter.grad.any()) != nothing, name


def test_a_picture_without_objects_counts_as_background_only() -> None:
    output = predict(small_head(), images=2)
    one = objects((4, 4, 30, 28, 17, 15, 3))
    both = losses_of(output, [objects(), one])
    second = replace(
        output,
        **{name: value[1:] for name, value in vars(output).items() if value.shape[0] == 2},
    )
    alone = losses_of(second, [one])
    for name in NAMES - {"enc_loss_obj"}:
        torch.testing.assert_close(both[name], alone[name])
    assert both["enc_loss_obj"] > alone["enc_loss_obj"]
    found = YOLOXLoss().targets(output, [objects(), one], SIZE)
    assert bool((found.index >= CELLS).all())


def test_objects_keep_their_picture() -> None:
    """Objects of several pictures: the row numbers of each are its own."""
    output = predict(small_head(), images=3)
    first = objects((4, 4, 30, 28, 17, 15, 3), (20, 8, 40, 24, 31, 14, 0))
    third = objects((10, 2, 44, 30, 25, 16, 7))
    found = YOLOXLoss().targets(output, [first, objects(), third], SIZE)
    image = found.index // CELLS
    assert set(image.tolist()) == {0, 2} and bool((found.index.diff() > 0).all())
    assert bool((found.corners[image == 2] == third.corners).all())
    assert set(found.classes[image == 0].nonzero()[:, 1].tolist()) <= {0, 3}
    prior, stride = output.priors[found.index % CELLS], output.strides[found.index % CELLS]
    torch.testing.assert_close(
        corners_from_cell_codes(found.box_codes, prior, stride), found.corners
    )
    centers = found.center_offsets * stride[:, None] + prior
    torch.testing.assert_close(
        centers[image == 2], third.centers.expand(int((image == 2).sum()), 2)
    )


def test_objects_without_area_and_beyond_the_border() -> None:
    head = small_head()
    targets = [
        objects((10, 10, 10, 10, 10, 10, 0), (-20, -9, 70, 60, 90, 48, 1), FAR),
        objects((5, 5, 5, 30, 40, 20, 2)),  # a line, its centre outside
    ]
    losses = losses_of(predict(head, images=2), targets)
    assert losses["enc_loss_cls"].item() > 0
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def perfect(target: Boxes2D, sureness: float) -> YOLOXOutput:
    """One picture in which every cell predicts an object."""
    output = predict(small_head(), images=1)
    corners = target.corners.expand(CELLS, 4)
    codes = cell_codes_from_corners(corners, output.priors, output.strides)
    logits = torch.full((1, CELLS, 10), -sureness)
    logits[..., target.labels] = sureness
    offsets = (target.centers - output.priors) / output.strides[:, None]
    return replace(output, logits=logits, box_codes=codes[None], center_offsets=offsets[None])


def test_losses_fall_as_predictions_improve() -> None:
    target = objects((8, 8, 40, 30, 24, 20, 4))
    best = perfect(target, 12.0)
    index = YOLOXLoss().targets(best, [target], SIZE).index
    assert len(index) == 10
    objectness = torch.full((1, CELLS, 1), -12.0)
    objectness[0, index] = 12.0
    best = replace(best, objectness=objectness)
    with torch.no_grad():
        start, lowest = predict(small_head(), images=1), losses_of(best, [target])
    assert all(value.item() == pytest.approx(0, abs=2e-4) for value in lowest.values())
    parts = {
        "logits": ["enc_loss_cls"],
        "box_codes": ["enc_loss_iou", "enc_loss_bbox"],
        "objectness": ["enc_loss_obj"],
        "center_offsets": ["enc_loss_centers2d"],
    }
    for part, names in parts.items():
        found = []
        for share in (0.6, 0.3, 0.0):
            mixed = torch.lerp(getattr(best, part), getattr(start, part).detach(), share)
            found.append(losses_of(replace(best, **{part: mixed}), [target]))
        for name in names:
            path = [losses[name].item() for losses in found]
            assert path[0] > path[1] > path[2] == lowest[name].item(), (part, path)


def test_training_steps_lower_the_loss() -> None:
    head, maps = small_head(), features(2)
    targets = [objects((4, 4, 30, 28, 17, 15, 3)), objects((20, 8, 40, 24, 31, 14, 0))]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    totals = []
    for _ in range(40):
        optimizer.zero_grad()
        total = torch.stack(list(losses_of(head(maps, SIZE), targets).values())).sum()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert min(totals[-10:]) < 0.8 * totals[0]


@pytest.mark.parametrize("targets", [[objects()], [objects((8, 8, 40, 30, 24, 20, 4))]])
def test_divisor_is_reduced_once_whatever_the_boxes(targets: list[Boxes2D]) -> None:
    output = perfect(objects((8, 8, 40, 30, 24, 20, 4)), 2.0)
    seen: list[float] = []

    def reduce_mean(value: Tensor) -> Tensor:
        seen.append(value.item())
        return value * 2

    losses = losses_of(output, targets)
    averaged = losses_of(output, targets, YOLOXLoss(reduce_mean=reduce_mean))
    count = 10 if len(targets[0]) else 0
    assert seen == [count]
    for name, value in losses.items():
        torch.testing.assert_close(averaged[name], value / 2 if count else value)


def test_weights_are_factors() -> None:
    output = predict(small_head(), images=1)
    target = [objects((4, 4, 30, 28, 17, 15, 3))]
    plain = losses_of(output, target)
    doubled = YOLOXLoss(
        class_weight=2.0,
        iou_weight=10.0,
        objectness_weight=2.0,
        box_weight=2.0,
        center_weight=2.0,
    )
    for name, value in losses_of(output, target, doubled).items():
        torch.testing.assert_close(value, 2 * plain[name])


@pytest.mark.parametrize("label", [-1, 10])
def test_wrong_labels_are_named(label: int) -> None:
    output = predict(small_head(), images=1)
    with pytest.raises(ValueError, match=f"labels has {label}, but .* classes 0 to 9"):
        losses_of(output, [objects((4, 4, 30, 28, 17, 15, label))])


def test_wrong_number_of_pictures_is_named() -> None:
    with pytest.raises(ValueError, match="of 2 images, but there are 2D boxes of 1"):
        losses_of(predict(small_head(), images=2), [objects()])
