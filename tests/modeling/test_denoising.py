"""Denoising by hand: which box is in which slot, inside the range, and losses without any box."""

from __future__ import annotations

import pytest
import torch
from tiny_detector import make_detector, make_sample, with_boxes

from streampetr_vit.modeling.criterion.assignment import assign
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.structures import Frame

RANGE = torch.tensor([0.0, 0.0, 0.0, 10.0, 10.0, 10.0])
GROUPS = 3


def boxes_at(*places: float) -> torch.Tensor:
    boxes = torch.zeros(len(places), 9)
    boxes[:, :3] = torch.tensor(places)[:, None]
    boxes[:, 3:6] = 1.0
    return boxes


def test_every_copy_of_a_box_is_in_its_own_stream_and_slot() -> None:
    """Streams of one and of three boxes: copies that went elsewhere would be far from their box."""
    boxes, labels = [boxes_at(1.0), boxes_at(3.0, 5.0, 7.0)], [torch.tensor([4]), torch.arange(3)]
    middle = torch.full((GROUPS * 4, 3), 0.5)  # no noise at all
    queries = DenoisingNoise(groups=GROUPS).make(boxes, labels, RANGE, 10, middle)
    expected = torch.zeros(2, GROUPS * 3, 3)
    expected[0, 0::3] = 0.1  # the other two slots of each group stay empty
    expected[1] = torch.tensor([0.3, 0.5, 0.7]).repeat(GROUPS)[:, None]
    torch.testing.assert_close(queries.reference_points, expected)
    assert queries.stream.tolist() == [0, 1, 1, 1] * GROUPS
    assert queries.slot.tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8]
    assert queries.labels.tolist() == [4, 0, 1, 2] * GROUPS
    found = queries.reference_points[queries.stream, queries.slot] * 10
    torch.testing.assert_close(found, queries.boxes[:, :3])


@pytest.mark.parametrize(("draw", "edge"), [(0.0, 0.0), (0.999, 10.0)])
def test_noise_leads_nowhere_outside_of_the_range(draw: float, edge: float) -> None:
    noise = DenoisingNoise(groups=1)
    queries = noise.make([boxes_at(edge)], [torch.tensor([0])], RANGE, 10, torch.full((1, 3), draw))
    assert queries.reference_points.flatten().tolist() == [edge / 10] * 3
    inside = noise.make([boxes_at(5.0)], [torch.tensor([0])], RANGE, 10, torch.full((1, 3), draw))
    torch.testing.assert_close(
        inside.reference_points.flatten(), torch.full((3,), 0.5 + 0.05 * (2 * draw - 1))
    )


def test_losses_that_stand_in_for_denoising_have_no_gradient() -> None:
    """Without any box the names must be there; a gradient would count the matched losses twice."""
    detector, sample = make_detector().train(), with_boxes(make_sample(0), 0)
    boxes, labels = [sample.gt_boxes], [sample.gt_labels]
    queries = detector.denoising.make(boxes, labels, detector.head.point_cloud_range, 10)
    output, _ = detector.step(Frame.collate([sample]), detector.empty_memory(1), queries)
    criterion = DetectionLoss()
    pairs = assign(criterion.costs(output, boxes, labels))
    losses = criterion.losses(output, boxes, labels, pairs, queries)
    standing_in = {name: value for name, value in losses.items() if "dn_" in name}
    assert standing_in and not any(value.requires_grad for value in standing_in.values())
    assert all(value.requires_grad for name, value in losses.items() if name not in standing_in)
