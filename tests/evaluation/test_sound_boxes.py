"""How many boxes, and how many broken ones among them, a sample may have."""

from __future__ import annotations

import math

import pytest
import torch

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.sound_boxes import sound_boxes
from streampetr_vit.structures import Detections


def _detections(count: int, broken: int) -> Detections:
    boxes = torch.ones(count, 9)
    boxes[:broken, 3] = math.nan
    return Detections(boxes, torch.ones(count), torch.full((count,), 9))


def test_as_many_boxes_as_the_task_takes() -> None:
    assert len(sound_boxes(_detections(500, broken=0), "a", num_classes=10)) == 500
    with pytest.raises(InputError, match="sample a has 501 detections"):
        sound_boxes(_detections(501, broken=0), "a", num_classes=10)
    assert len(sound_boxes(_detections(0, broken=0), "a", num_classes=10)) == 0


def test_one_broken_box_of_ten_is_left_out_and_two_are_too_many() -> None:
    left = sound_boxes(_detections(10, broken=1), "a", num_classes=10)
    assert len(left) == len(left.scores) == len(left.labels) == 9
    with pytest.raises(InputError, match="sample a: 2 of its 10 boxes are broken"):
        sound_boxes(_detections(10, broken=2), "a", num_classes=10)
