"""Many tensors in one copy: equal values, aligned, and on the CPU no copy at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_detector import make_sample
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from streampetr_vit.modeling.criterion.losses import constant
from streampetr_vit.structures import Boxes2D, Frame, FrameTargets, packed_to
from streampetr_vit.structures.packed_copy import carried, pack, unpack
from streampetr_vit.structures.tensors import map_tensors, pinned


def mixed() -> list[Tensor]:
    """Every dtype of a step and more, odd byte counts between them, empty and strided tensors."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 5, 7, generator=generator)
    return [
        torch.tensor(True),
        torch.tensor(1.5e9 + 0.25, dtype=torch.float64),
        torch.randn(0, 9),
        noise,
        torch.tensor([True, False, True]),
        torch.arange(5),
        noise.transpose(0, 2),
        noise[:, 1:4:2],
        torch.empty(0, dtype=torch.int64),
        noise.bfloat16(),
        torch.tensor([3, 255], dtype=torch.uint8),
        torch.tensor(float("nan")),
        torch.zeros(4, 0, 2, dtype=torch.float64),
    ]


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def two_frames() -> tuple[list[Frame], list[FrameTargets]]:
    """Frames and targets of two streams with windows of two frames; one picture shows nothing."""
    moments = [[make_sample(time, scene) for scene in "ab"] for time in range(2)]
    moments[0][1] = make_sample(0, "b", gt_boxes=torch.zeros(0, 9), gt_labels=torch.arange(0))
    boxes = moments[1][0].boxes2d
    boxes[2] = boxes[2][torch.zeros(len(boxes[2]), dtype=torch.bool)]
    frames = [Frame.collate(moment) for moment in moments]
    return frames, [FrameTargets.collate(moment) for moment in moments]


def leaves(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_tensors(values, lambda tensor: found.append(tensor) or tensor)
    return found


class Copies(TorchDispatchMode):
    """Counts what crosses from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            self.count += result.device != args[0].device
        return result


def test_what_is_packed_is_unpacked() -> None:
    tensors = mixed()
    packed = pack(tensors)
    assert packed.dtype == torch.uint8 and packed.dim() == 1
    for found, expected in zip(unpack(packed.clone(), tensors), tensors, strict=True):
        assert_same(found, expected)
        assert found.is_contiguous()


def test_every_tensor_begins_at_an_aligned_byte() -> None:
    tensors = mixed()
    packed = pack(tensors)
    places = unpack(packed, tensors)
    starts = [place.storage_offset() * place.itemsize for place in places]
    assert all(start % 256 == 0 for start in starts)
    ends = [start + place.nbytes for start, place in zip(starts, places, strict=True)]
    assert all(end <= start for end, start in zip(ends, [*starts[1:], len(packed)], strict=True))


def test_nothing_can_be_packed() -> None:
    assert pack([]).numel() == 0 and unpack(pack([]), []) == []
    assert packed_to([], torch.device("meta")) == []


def test_frames_and_targets_keep_their_values_and_places() -> None:
    values = two_frames()
    carries = []
    found = carried(values, lambda packed: carries.append(packed) or packed.clone())
    assert len(carries) == 1
    assert [type(part[0]) for part in found] == [Frame, FrameTargets]
    assert isinstance(found[1][1].boxes2d[2], Boxes2D) and len(found[1][1].boxes2d[2]) == 0
    for moved, expected in zip(leaves(found), leaves(values), strict=True):
        assert_same(moved, expected)
        assert moved.data_ptr() != expected.data_ptr() or not moved.numel()


def test_another_device_gets_one_copy() -> None:
    values = two_frames()
    with Copies() as copies:
        found = packed_to(values, torch.device("meta"))
    assert copies.count == 1
    for moved, expected in zip(leaves(found), leaves(values), strict=True):
        assert moved.device.type == "meta"
        assert (moved.shape, moved.dtype) == (expected.shape, expected.dtype)


def test_pictures_travel_on_their_own_before_they_are_stacked() -> None:
    samples = [make_sample(0, scene) for scene in "ab"]
    with Copies() as copies:
        frame = Frame.collate(samples, images_to="meta")
        packed_to(frame, torch.device("meta"))
    assert copies.count == len(samples) + 1
    assert frame.images.device.type == "meta"
    assert frame.images.shape == (2, *samples[0].images.shape)
    assert frame.timestamp_s.device.type == "cpu"


def test_nothing_is_copied_on_the_cpu() -> None:
    values = two_frames()
    found = packed_to(values, torch.device("cpu"))
    for moved, expected in zip(leaves(found), leaves(values), strict=True):
        assert moved is expected


def test_tuples_and_other_values_are_walked() -> None:
    values = ([torch.zeros(1)], None, 3, "name", (torch.ones(2),))
    found = map_tensors(values, lambda tensor: tensor + 1)
    assert found[1:4] == (None, 3, "name")
    assert found[0][0].item() == 1 and found[4][0].tolist() == [2, 2]


def test_what_goes_to_a_gpu_is_pinned_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    value = torch.zeros(2)
    assert pinned(value, "cuda").tolist() == [1, 1]
    assert pinned(value, "cpu") is value
    on_device = torch.zeros(2, device="meta")
    assert pinned(on_device, "cuda") is on_device


def test_a_constant_of_inference_takes_part_in_training() -> None:
    weights = torch.ones(2, requires_grad=True)
    with torch.inference_mode():
        first = constant([3.25, 7.5], weights)
    (weights * constant((3.25, 7.5), weights)).sum().backward()
    assert weights.grad is not None and weights.grad.tolist() == [3.25, 7.5]
    assert constant([3.25, 7.5], weights) is first
    assert constant([3.25, 7.5], weights.double()).dtype == torch.float64


def test_what_is_on_the_device_already_is_neither_packed_nor_carried() -> None:
    """The capture of a CUDA graph runs through here, and may not pin memory."""

    def carry(packed: torch.Tensor) -> torch.Tensor:
        raise AssertionError("carried")

    values = [torch.zeros(2, device="meta")]
    assert carried(values, carry, pin=True) is values
