"""The device part of a frame: no waiting for the device, and the rig's code computed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from synchronisation import NoSynchronisation, SynchronisationError
from tiny_detector import make_detector, make_repdetr3d, make_sample
from torch import Tensor

from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.box_coding import decode_padded
from streampetr_vit.modeling.image.rig_code import RigCode, RigCodeCache
from streampetr_vit.structures import CameraRig, Detections, Frame, PaddedDetections
from streampetr_vit.structures.tensors import map_tensors, tensors_of

SIZE = (32, 64)
Sample = dict[str, Any]
DETECTORS = {
    "streampetr": make_detector,
    "with a prior": partial(make_detector, prior_sigma_cells=1.0),
    "chosen tokens": partial(make_detector, token_ratio=0.25),
    "repdetr3d": make_repdetr3d,
}
all_detectors = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)


def same(a: Any, b: Any) -> bool:
    return all(map(torch.equal, tensors_of(a), tensors_of(b)))


def turned(sample: Sample) -> Sample:
    """The same moment seen by the same cameras, each in the place of the next."""
    keys = ("intrinsics", "lidar_to_camera", "lidar_to_image")
    return sample | {key: sample[key].roll(1, 0) for key in keys}


@all_detectors
def test_no_operation_of_a_frame_waits_for_the_device(make: Callable[[], StreamPETR]) -> None:
    detector = make().eval()
    detector.head.score_threshold = 0.1
    frame, memory = Frame.collate([make_sample(0)]), detector.empty_memory(1)
    detector.detect(frame, memory)  # the first frame of a size makes the ViT's tables
    with torch.no_grad(), NoSynchronisation():
        code = detector.head.encode_rig(frame.rig, SIZE)
        for _ in range(2):
            _, memory = detector.detect(frame, memory, code)


WAITING = {
    "item": lambda x: x.sum().item(),
    "condition": lambda x: x if (x > 0).any() else -x,
    "mask": lambda x: x[x > 0],
    "assignment": lambda x: x.clone().__setitem__(x > 0, 0.0),
    "nonzero": lambda x: (x > 0).nonzero(),
    "inverse": torch.inverse,
    "constant": lambda x: x * torch.tensor([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("wait", WAITING.values(), ids=WAITING)
def test_waiting_is_found(wait: Callable[[Tensor], Any]) -> None:
    x = torch.eye(3) + 1
    with pytest.raises(SynchronisationError), NoSynchronisation():
        wait(x)


def test_the_gather_kernel_waits_and_is_found() -> None:
    detector = make_repdetr3d(sampling_kernel="gather").eval()
    frame, memory = Frame.collate([make_sample(0)]), detector.empty_memory(1)
    detector.detect(frame, memory)
    with pytest.raises(SynchronisationError, match="nonzero|index"), NoSynchronisation():
        detector.detect(frame, memory)


def test_padded_detections_are_those_that_are_valid() -> None:
    boxes = torch.rand(2, 3, 9)
    scores, labels = torch.rand(2, 3), torch.arange(6).view(2, 3)
    valid = torch.tensor([[True, False, True], [False, False, False]])
    first, second = PaddedDetections(boxes, scores, labels, valid).unpad()
    expected = Detections(boxes[0, [0, 2]], scores[0, [0, 2]], labels[0, [0, 2]])
    assert same(first, expected)
    assert len(second) == 0 and second.boxes.shape == (0, 9)


@all_detectors
def test_a_kept_code_gives_the_same_bits(make: Callable[[], StreamPETR]) -> None:
    detector = make().eval()
    cache, memories = RigCodeCache(), [detector.empty_memory(1)] * 2
    for time in range(3):
        frame = Frame.collate([make_sample(time)])
        code = cache.get(detector.head, frame.rig, SIZE)
        with_code = detector.detect(frame, memories[0], code)
        without = detector.detect(frame, memories[1])
        assert all(map(same, with_code, without))
        memories = [with_code[1], without[1]]


def counted(detector: StreamPETR, monkeypatch: pytest.MonkeyPatch) -> list[CameraRig]:
    """Grows with each code that the detector's head makes."""
    made: list[CameraRig] = []
    make = detector.head.encode_rig

    def encode_rig(rig: CameraRig, size: tuple[int, int]) -> RigCode:
        made.append(rig)
        return make(rig, size)

    monkeypatch.setattr(detector.head, "encode_rig", encode_rig)
    return made


@pytest.mark.parametrize("make", [make_detector, make_repdetr3d])
def test_a_stream_makes_one_code_and_one_more_for_each_change_of_the_rig(
    make: Callable[[], StreamPETR], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make().eval()
    made = counted(detector, monkeypatch)
    frames = [make_sample(time) for time in range(5)]
    frames[2:4] = map(turned, frames[2:4])
    found = [detector([frame])[0]["detections"] for frame in frames]
    assert len(made) == 3
    detector.reset_streams()
    for frame, before in zip(frames, found, strict=True):
        detector.eval()  # forgets the code, not the stream
        assert same(detector([frame])[0]["detections"], before)
    assert len(made) == 3 + 5


@pytest.mark.parametrize("key", ["intrinsics", "lidar_to_camera", "lidar_to_image"])
def test_any_part_of_another_calibration_makes_another_code(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_detector().eval()
    made = counted(detector, monkeypatch)
    frames = [make_sample(0), make_sample(1), make_sample(2)]
    frames[1][key] = frames[1][key] * 1.01
    for frame in frames:
        detector([frame])
    assert len(made) == 3


def test_detections_below_the_threshold_are_not_valid() -> None:
    logits = torch.tensor([[[2.0, -2.0], [0.5, -3.0]]])
    codes, limits = torch.zeros(1, 2, 10), torch.tensor([-1.0, -1, -1, 1, 1, 1])
    every = decode_padded(logits, codes, 4, limits)
    some = decode_padded(logits, codes, 4, limits, score_threshold=0.6)
    assert every.valid.tolist() == [[True] * 4]
    assert some.valid.tolist() == [[True, True, False, False]]
    assert torch.equal(every.scores, some.scores)


def test_another_batch_or_image_size_makes_another_code(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = make_detector().eval()
    made = counted(detector, monkeypatch)
    narrow = make_sample(1) | {"images": make_sample(1)["images"][..., :48]}
    less_padded = make_sample(2) | {"images": make_sample(2)["images"][..., :50]}
    for samples in (
        [make_sample(0)],
        [narrow],
        [less_padded],
        [make_sample(3), make_sample(3, "b")],
    ):
        detector(samples)
    assert len(made) == 4
    detector([make_sample(4), make_sample(4, "b")])
    assert len(made) == 4


CHANGES: dict[str, Callable[[StreamPETR], Any]] = {
    "optimizer": lambda d: d.head.token_modulation.gamma.weight.mul_(1.5),
    "state_dict": lambda d: d.load_state_dict(make_detector(1).state_dict()),
    "assigned": lambda d: d.load_state_dict(make_detector(1).state_dict(), assign=True),
    "head only": lambda d: d.head.load_state_dict(make_detector(1).head.state_dict()),
    "replaced part": lambda d: setattr(
        d.head, "position_encoder", make_detector(1).head.position_encoder
    ),
    "data": lambda d: setattr(
        d.head.token_modulation.gamma.weight, "data", d.head.token_modulation.gamma.weight * 2
    ),
    "training": lambda d: d.train().eval(),
    "reset": lambda d: d.reset_streams(training=False),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_weights_and_modes_make_another_code(
    change: Callable[[StreamPETR], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_detector().eval()
    made = counted(detector, monkeypatch)
    detector([make_sample(0)])
    with torch.no_grad():
        change(detector)
    found = detector([make_sample(1, "b")])[0]["detections"]
    assert len(made) == 2
    fresh = make_detector().eval()
    fresh.load_state_dict(detector.state_dict())
    assert same(found, fresh([make_sample(1, "b")])[0]["detections"])


def test_a_rig_written_over_in_place_is_another_rig() -> None:
    detector, cache = make_detector().eval(), RigCodeCache()
    rig = Frame.collate([make_sample(0)]).rig
    first = cache.get(detector.head, rig, SIZE)
    assert cache.get(detector.head, map_tensors(rig, torch.clone), SIZE) is first
    rig.intrinsics.mul_(2)
    second = cache.get(detector.head, rig, SIZE)
    assert second is not first
    assert same(second, detector.head.encode_rig(rig, SIZE))


class CountingEncoder:
    """Stands for a head on a device whose values cannot be read."""

    def __init__(self) -> None:
        self.rig_parts = (torch.nn.Linear(1, 1, device="meta"),)
        self.made = 0

    def encode_rig(self, rig: CameraRig, size: tuple[int, int]) -> RigCode:
        self.made += 1
        return RigCode(rig.intrinsics, rig.intrinsics)


def test_a_rig_on_a_device_is_known_by_its_tensors() -> None:
    head, cache = CountingEncoder(), RigCodeCache()
    rig = Frame.collate([make_sample(0)]).rig.to("meta")
    for _ in range(2):
        cache.get(head, CameraRig(rig.lidar_to_image, rig.intrinsics, rig.lidar_to_camera), SIZE)
    assert head.made == 1
    cache.get(head, map_tensors(rig, torch.clone), SIZE)
    assert head.made == 2
    cache.get(head, rig, SIZE)
    rig.lidar_to_image.mul_(2)
    cache.get(head, rig, SIZE)
    assert head.made == 4


def test_a_code_of_another_size_is_refused() -> None:
    detector = make_detector().eval()
    frame = Frame.collate([make_sample(0)])
    code = detector.head.encode_rig(frame.rig, (32, 32))
    with pytest.raises(ValueError, match=r"tokens\) \(1, 24\), the features are of \(1, 48\)"):
        detector.detect(frame, detector.empty_memory(1), code)
