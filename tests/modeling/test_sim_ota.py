"""Which cells of a feature pyramid are to predict which object."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from streampetr_vit.modeling.criterion.sim_ota import CellAssignment, SimOTA
from streampetr_vit.modeling.ops.geometry import token_centers
from streampetr_vit.modeling.ops.rectangles import iou


def row_of_cells(count: int, stride: float = 4.0) -> tuple[Tensor, Tensor]:
    """Centres (count, 2) and strides of cells side by side, the first around (2, 2)."""
    x = torch.arange(count) * stride + stride / 2
    return torch.stack((x, torch.full_like(x, stride / 2)), dim=1), torch.full((count,), stride)


def assign_row(
    boxes: Tensor, true_boxes: Tensor, scores: Tensor | None = None, assigner: SimOTA | None = None
) -> CellAssignment:
    """Cells of `row_of_cells` that predict these boxes, objects of class 0, 1, ..."""
    centers, strides = row_of_cells(len(boxes))
    scores = torch.full((len(boxes), 4), 0.25) if scores is None else scores
    labels = torch.arange(len(true_boxes))
    return (assigner or SimOTA())(scores, boxes, centers, strides, true_boxes, labels)


def test_a_box_far_from_all_cells_takes_none() -> None:
    boxes = torch.tensor([[0.0, 0, 8, 4]]).repeat(5, 1)
    found = assign_row(boxes, torch.tensor([[300.0, 300, 310, 310]]))
    assert found.row.tolist() == [-1] * 5 and not found.overlap.any()
    # Nor does it disturb another, which takes the cells near it.
    pair = assign_row(boxes, torch.tensor([[0.0, 0, 8, 4], [300.0, 300, 310, 310]]))
    assert set(pair.row.tolist()) == {0, -1}


def test_two_boxes_competing_for_one_cell() -> None:
    """One cell; the object that it predicts better takes it, and the other has none."""
    boxes = torch.tensor([[0.0, 0, 4, 4]])
    true = torch.tensor([[0.0, 0, 8, 4], [0.0, 0, 5, 4]])  # overlaps 1/2 and 4/5
    found = assign_row(boxes, true)
    assert found.row.tolist() == [1] and found.overlap.tolist() == pytest.approx([0.8])
    assert assign_row(boxes, true.flip(0)).row.tolist() == [0]
    # A surer class outweighs the better overlap: -3 ln(0.8 / 0.5) = -1.41.
    scores = torch.tensor([[0.9, 0.01, 0.0, 0.0]])
    assert assign_row(boxes, true, scores).row.tolist() == [0]


def test_a_contested_cell_goes_to_the_least_cost_over_all_objects() -> None:
    """The third object did not take the cell that two others contest, but costs it least."""
    cell = [0.0, 0, 6, 4]
    boxes = torch.tensor([cell, [0.0, 0, 7.6, 4], [90.0, 0, 91, 1], [90.0, 0, 91, 1]])
    # Objects 0 and 1 overlap best with cell 0, and object 2 with cell 1; but of the three objects
    # it is object 2 that cell 0 overlaps best with.
    true = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 4, 4.1], [0.0, 0, 8, 4]])
    overlap = iou(boxes[:, None], true)
    assert overlap[:, :2].argmax(0).tolist() == [0, 0] and overlap[:, 2].argmax() == 1
    assert overlap[0].argmax() == 2 and int(overlap[:, 2].sum()) == 1
    assert assign_row(boxes, true).row.tolist() == [2, 2, -1, -1]


@pytest.mark.parametrize(("share", "expected"), [(1.0, 6), (0.75, 4), (0.66, 3), (0.1, 1)])
def test_number_of_cells_is_the_truncated_sum_of_overlaps(share: float, expected: int) -> None:
    true = torch.tensor([[0.0, 0, 24, 4]])
    boxes = torch.tensor([[0.0, 0, 24 * share, 4]]).repeat(6, 1)
    # All six cells predict the same and cost the same: any of them, but so many.
    found = assign_row(boxes, true)
    assert int((found.row == 0).sum()) == expected
    assert found.overlap[found.row == 0].tolist() == pytest.approx([share] * expected, abs=1e-5)


def test_at_most_so_many_candidates() -> None:
    true = torch.tensor([[0.0, 0, 60, 4]])
    boxes = true.repeat(15, 1)
    assert int((assign_row(boxes, true).row == 0).sum()) == 10
    few = assign_row(boxes, true, assigner=SimOTA(num_candidates=3))
    taken = (few.row == 0).nonzero()[:, 0]
    # Those in the middle of the box as well as in it: |x - 30| < 2.5 * 4.
    assert len(taken) == 3 and bool(((taken * 4 + 2 - 30).abs() < 10).all())


def test_cells_in_box_and_middle_go_before_better_predictions() -> None:
    true = torch.tensor([[0.0, 0, 60, 4]])
    boxes = true.repeat(15, 1)
    boxes[4:11] = torch.tensor([0.0, 0, 1, 4])  # in the middle, and bad
    found = assign_row(boxes, true, assigner=SimOTA(num_candidates=5))
    assert [i for i, row in enumerate(found.row.tolist()) if row == 0] == [5, 6, 7, 8, 9]


def test_assignment_against_a_loop() -> None:
    """Random pictures, cell by cell and object by object."""
    generator = torch.Generator().manual_seed(3)
    levels = [
        token_centers(4, 6, 8, torch.device("cpu")),
        token_centers(2, 3, 16, torch.device("cpu")),
    ]
    centers, strides = torch.cat(levels), torch.tensor([8.0] * 24 + [16.0] * 6)
    for _ in range(5):
        low = torch.rand(4, 2, generator=generator) * torch.tensor([40.0, 24.0])
        true = torch.cat((low, low + 4 + torch.rand(4, 2, generator=generator) * 16), dim=1)
        labels = torch.randint(0, 3, (4,), generator=generator)
        near = true[torch.randint(0, 4, (len(centers),), generator=generator)]
        boxes = near + torch.rand(len(centers), 4, generator=generator) * 3
        scores = torch.rand(len(centers), 3, generator=generator)
        found = SimOTA()(scores, boxes, centers, strides, true, labels)
        expected = loop(scores, boxes, centers, strides, true, labels)
        assert found.row.tolist() == expected


def loop(
    scores: Tensor, boxes: Tensor, centers: Tensor, strides: Tensor, true: Tensor, labels: Tensor
) -> list[int]:
    cells, count = len(boxes), len(true)
    cost = [[math.inf] * count for _ in range(cells)]
    for k in range(cells):
        where = []
        for x1, y1, x2, y2 in true.tolist():
            x, y = centers[k].tolist()
            reach = 2.5 * float(strides[k])
            in_box = x1 < x < x2 and y1 < y < y2
            in_middle = abs(x - (x1 + x2) / 2) < reach and abs(y - (y1 + y2) / 2) < reach
            where.append((in_box, in_middle))
        if not any(any(pair) for pair in where):
            continue
        for g in range(count):
            entropy = 0.0
            for c, score in enumerate(scores[k].tolist()):
                p = math.sqrt(score)
                entropy -= math.log(p) if c == labels[g] else math.log(1 - p)
            overlap = float(iou(boxes[k], true[g]))
            cost[k][g] = entropy - 3 * math.log(overlap + 1e-7) + 1e5 * (not all(where[g]))
    near = [k for k in range(cells) if cost[k][0] < math.inf]
    takers: dict[int, list[int]] = {}
    for g in range(count):
        best = sorted((float(iou(boxes[k], true[g])) for k in near), reverse=True)[:10]
        for k in sorted(near, key=lambda k: cost[k][g])[: max(int(sum(best)), 1)]:
            takers.setdefault(k, []).append(g)
    rows = [-1] * cells
    for k, takes in takers.items():
        rows[k] = takes[0] if len(takes) == 1 else cost[k].index(min(cost[k]))
    return rows


def test_cells_near_nothing_do_not_count() -> None:
    """Six cells near the object overlap by a tenth each; nine beyond it fit, but are too far."""
    true = torch.tensor([[0.0, 0, 24, 4]])
    boxes = torch.cat((torch.tensor([[0.0, 0, 2.4, 4]]).repeat(6, 1), true.repeat(9, 1)))
    found = assign_row(boxes, true)
    taken = (found.row == 0).nonzero()[:, 0]
    assert len(taken) == 1 and int(taken) < 6


@pytest.mark.parametrize("broken", ["boxes", "scores"])
def test_broken_predictions_are_taken_last(broken: str) -> None:
    """Six cells in the object's middle are broken; the others lie beside it and predict nothing."""
    true = torch.tensor([[0.0, 0, 40, 4]])
    boxes, scores = true.repeat(10, 1) + 100.0, torch.full((10, 4), 0.25)
    (boxes if broken == "boxes" else scores)[2:8] = math.nan
    found = assign_row(boxes, true, scores)
    taken = (found.row == 0).nonzero()[:, 0]
    assert len(taken) == 1 and int(taken) in (0, 1, 8, 9) and found.overlap.isfinite().all()


def test_nothing_but_broken_predictions_are_near() -> None:
    """One is taken all the same."""
    alone = assign_row(torch.full((4, 4), math.nan), torch.tensor([[0.0, 0, 16, 4]]))
    assert int((alone.row == 0).sum()) == 1 and alone.overlap.isfinite().all()


def test_no_object() -> None:
    found = assign_row(torch.zeros(3, 4), torch.zeros(0, 4))
    assert found.row.tolist() == [-1] * 3 and found.overlap.tolist() == [0.0] * 3


@pytest.mark.parametrize("arguments", [{"center_radius": 0.0}, {"num_candidates": 0}])
def test_bad_settings_of_the_assigner_are_named(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SimOTA(**arguments)
