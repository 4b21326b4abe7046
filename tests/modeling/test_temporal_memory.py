"""The memory where one stream goes on and another starts, and the small functions beside it."""

from __future__ import annotations

import math

import torch

from streampetr_vit.modeling.ops.geometry import inverse_sigmoid, normalize_to_range
from streampetr_vit.modeling.temporal.memory import TemporalMemory, align


def test_only_a_stream_that_starts_has_queries_at_the_fixed_places() -> None:
    memory = TemporalMemory.empty(2, 3, 4).map(lambda value: value + 7)
    here = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    starts = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    goes_on = torch.tensor([True, False])
    times = torch.zeros(2, dtype=torch.float64)
    aligned = align(memory, 3, goes_on, here, times, starts)
    assert torch.equal(aligned.center_m[0], torch.full((3, 3), 7.0))
    assert torch.equal(aligned.pose[0], torch.full((3, 4, 4), 7.0))
    assert torch.equal(aligned.center_m[1], torch.cat((starts, torch.zeros(1, 3))))
    assert torch.equal(aligned.pose[1, :2], torch.eye(4).expand(2, 4, 4))
    assert not aligned.pose[1, 2].any() and not aligned.embedding[1].any()


def test_logits_are_within_their_bounds() -> None:
    outside = inverse_sigmoid(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0]))
    bound = math.log(1e5)
    assert torch.allclose(outside, torch.tensor([-bound, -bound, 0.0, bound, bound]))


def test_a_box_is_the_range_from_0_to_1() -> None:
    limits = torch.tensor([-10.0, -20, -5, 30, 20, 3])
    points = torch.stack((limits[:3], limits[3:], limits[3:] + limits[3:] - limits[:3]))
    expected = torch.tensor([0.0, 1, 2])[:, None].expand(3, 3)
    assert torch.allclose(normalize_to_range(points, limits), expected)
