"""Streams: scenes and order, memory off, several at once, the kept rig code, no waiting."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from synchronisation import NoSynchronisation, SynchronisationError
from tiny_detector import last_layer, make_detector, make_repdetr3d, make_sample, same
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.box_coding import decode_padded
from streampetr_vit.modeling.image.rig_code import RigCode
from streampetr_vit.modeling.ops.precision import cast_weights
from streampetr_vit.structures import CameraRig, Detections, Frame, PaddedDetections, Sample
from streampetr_vit.structures.tensors import map_tensors, move_tensor

SIZE = (32, 64)
DETECTORS = {
    "streampetr": make_detector,
    "with a prior": partial(make_detector, prior_sigma_cells=1.0),
    "chosen tokens": partial(make_detector, token_ratio=0.25),
    "repdetr3d": make_repdetr3d,
}
all_detectors = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)
both_heads = pytest.mark.parametrize("make", [make_detector, make_repdetr3d])


def frames_of(samples: list[Sample]) -> list[Frame]:
    return [Frame.collate([sample]) for sample in samples]


def alone(detector: StreamPETR, samples: list[Sample]) -> list[Detections]:
    """Detections of one stream, frame by frame."""
    stream = Stream(detector)
    return [stream([sample])[0] for sample in samples]


@both_heads
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_stream_is_the_detectors_function_with_the_memory_carried(
    make: Callable[[], StreamPETR], precision: str
) -> None:
    detector = make().eval()
    frames = frames_of([make_sample(time, continues=time not in (0, 2)) for time in range(4)])
    stream, memory = Stream(detector, precision), detector.empty_memory(1)
    for frame in frames:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            expected, memory = detector.detect(frame, memory)
        assert same(stream.push(frame), expected) and same(stream.memory, memory)


def test_a_new_scene_starts_with_an_empty_memory() -> None:
    detector = make_detector().eval()
    found = alone(detector, [make_sample(0, "a"), make_sample(1, "a"), make_sample(1, "b")])
    assert same(found[2], alone(detector, [make_sample(1, "b")])[0])
    assert not same(found[1], alone(detector, [make_sample(1, "a")])[0])


def test_scenes_decide_and_not_what_the_samples_say() -> None:
    detector = make_detector().eval()
    plain = [make_sample(time) for time in range(3)]
    contrary = [replace(s, continues_stream=~s.continues_stream) for s in plain]
    assert same(alone(detector, plain), alone(detector, contrary))


def test_memory_off_makes_every_frame_its_own_stream() -> None:
    detector = make_detector().eval()
    stream = Stream(detector, memory=False)
    # In any order: nothing is continued.
    for time in (1, 0, 2):
        assert same(stream([make_sample(time)]), [alone(detector, [make_sample(time)])[0]])
        assert stream.memory is None


def test_a_batch_of_streams_equals_each_alone() -> None:
    detector = make_detector().eval()
    rows = [
        [make_sample(t, "a") for t in range(3)],
        [make_sample(0, "b"), make_sample(1, "b"), make_sample(0, "c")],  # a change of scene
    ]
    stream = Stream(detector)
    both = [stream(moment) for moment in zip(*rows, strict=True)]
    for row, samples in enumerate(rows):
        for found, expected in zip(both, alone(detector, samples), strict=True):
            assert torch.equal(found[row].labels, expected.labels)
            torch.testing.assert_close(found[row].boxes, expected.boxes, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found[row].scores, expected.scores, atol=1e-6, rtol=1e-5)


def test_another_number_of_rows_starts_anew() -> None:
    detector = make_detector().eval()
    stream = Stream(detector)
    stream([make_sample(0, "a"), make_sample(0, "b")])
    assert same(stream([make_sample(1, "a")]), alone(detector, [make_sample(1, "a")]))
    frame = Frame.collate([make_sample(2, "a"), make_sample(2, "b")])
    expected = Stream(detector).push(frame)
    assert same(stream.push(frame), expected)


def test_out_of_order_frames_are_refused_until_a_reset() -> None:
    detector = make_detector().eval()
    stream = Stream(detector)
    stream([make_sample(1)])
    with pytest.raises(ValueError, match=r"scene a are out of order.*reset\(\)"):
        stream([make_sample(0)])
    stream.reset()
    assert stream.memory is None
    assert same(stream([make_sample(0)]), alone(detector, [make_sample(0)]))


def test_training_mode_and_unknown_precisions_are_refused() -> None:
    detector = make_detector().train()
    with pytest.raises(ValueError, match="training mode"):
        Stream(detector)([make_sample(0)])
    with pytest.raises(ValueError, match="training mode"):
        cast_weights(detector.backbone, torch.bfloat16)
    with pytest.raises(InputError, match="precision 'fp8' is unknown: allowed are 'float32', 'b"):
        Stream(make_detector().eval(), precision="fp8")


@both_heads
def test_weights_cast_once_give_the_bits_of_autocast(make: Callable[[], StreamPETR]) -> None:
    detector = make().eval()
    cast = copy.deepcopy(detector)
    samples = [make_sample(time) for time in range(3)]
    plain, once = Stream(detector, "bf16"), Stream(cast, "bf16", cast=True)
    for sample in samples:
        assert same(once([sample]), plain([sample])) and same(once.memory, plain.memory)
    dtypes = {type(m): m.weight.dtype for m in cast.backbone.modules() if hasattr(m, "weight")}
    assert dtypes[torch.nn.Linear] == torch.bfloat16
    assert dtypes[torch.nn.LayerNorm] == torch.float32
    assert all(p.dtype == torch.float32 for p in cast.head.parameters())
    assert list(cast.state_dict()) == list(detector.state_dict())


@all_detectors
def test_nothing_in_push_waits_for_the_device(make: Callable[[], StreamPETR]) -> None:
    """Everything is on the CPU here; what is refused are operations that wait on a GPU."""
    detector = make().eval()
    detector.head.score_threshold = 0.1
    stream = Stream(detector)
    first, *others = frames_of([make_sample(time) for time in range(3)])
    stream.push(first)  # the first frame of a size makes the ViT's tables
    # A frame on a device: its rig is known by the object, never by its values.
    others = [replace(frame, rig=others[0].rig) for frame in others]
    step = stream._step
    step._known = replace(step._known, rig=others[0].rig, values=None)
    with torch.no_grad(), NoSynchronisation():
        for frame in others:
            stream.push(frame)


@all_detectors
def test_a_new_rig_is_encoded_without_waiting(make: Callable[[], StreamPETR]) -> None:
    detector = make().eval()
    frame = Frame.collate([make_sample(0)])
    with torch.no_grad(), NoSynchronisation():
        detector.head.encode_rig(frame.rig, SIZE)


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
    queries, lineages = labels + 900, 2**53 - 1 - labels  # ids that a float32 would round
    padded = PaddedDetections(boxes, scores, labels, valid, queries, lineages, labels)
    first, second = padded.unpad()
    columns = (boxes, scores, labels, queries, lineages)
    expected = Detections(*(column[0, [0, 2]] for column in columns))
    assert same(first, expected)
    assert len(second) == 0 and second.boxes.shape == (0, 9)
    assert first.labels.dtype == second.labels.dtype == torch.int64


def test_detections_come_to_the_cpu_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies, move = [], Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: copies.append(tensor) or move(tensor))
    shapes = ((2, 3, 9), (2, 3), (2, 3))
    others = torch.ones(4, 2, 3, dtype=torch.int64)
    PaddedDetections(*map(torch.ones, shapes), *others).unpad()
    assert len(copies) == 1


def test_detections_below_the_threshold_are_not_valid() -> None:
    logits = torch.tensor([[[2.0, -2.0], [0.5, -3.0]]])
    codes, limits = torch.zeros(1, 2, 10), torch.tensor([-1.0, -1, -1, 1, 1, 1])
    output = last_layer(logits, codes)
    every = decode_padded(output, 4, limits)
    some = decode_padded(output, 4, limits, score_threshold=0.6)
    assert every.valid.tolist() == [[True] * 4]
    assert some.valid.tolist() == [[True, True, False, False]]
    assert torch.equal(every.scores, some.scores)


def counted(detector: StreamPETR, monkeypatch: pytest.MonkeyPatch) -> list[CameraRig]:
    """Grows with each code that the detector's head makes."""
    made: list[CameraRig] = []
    make = detector.head.encode_rig

    def encode_rig(rig: CameraRig, size: tuple[int, int]) -> RigCode:
        made.append(rig)
        return make(rig, size)

    monkeypatch.setattr(detector.head, "encode_rig", encode_rig)
    return made


def turned(sample: Sample) -> Sample:
    """The same moment seen by the same cameras, each in the place of the next."""
    names = ("intrinsics", "lidar_to_camera", "lidar_to_image")
    return replace(sample, **{name: getattr(sample, name).roll(1, 0) for name in names})


@all_detectors
def test_a_kept_code_gives_the_same_bits(make: Callable[[], StreamPETR]) -> None:
    detector = make().eval()
    code, memories = None, [detector.empty_memory(1)] * 2
    for frame in frames_of([make_sample(time) for time in range(3)]):
        with torch.no_grad():
            code = code or detector.head.encode_rig(frame.rig, SIZE)
        with_code = detector.detect(frame, memories[0], code)
        without = detector.detect(frame, memories[1])
        assert same(with_code, without)
        memories = [with_code[1], without[1]]


@both_heads
def test_a_stream_makes_one_code_and_one_more_for_each_change_of_the_rig(
    make: Callable[[], StreamPETR], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make().eval()
    samples = [make_sample(time) for time in range(5)]
    samples[2:4] = map(turned, samples[2:4])
    expected, memory = [], detector.empty_memory(1)
    for frame in frames_of(samples):
        found, memory = detector.detect(frame, memory)
        expected += found.unpad()
    made = counted(detector, monkeypatch)
    assert same(alone(detector, samples), expected)
    assert len(made) == 3


@pytest.mark.parametrize("name", ["intrinsics", "lidar_to_camera", "lidar_to_image"])
def test_any_part_of_another_calibration_makes_another_code(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_detector().eval()
    made = counted(detector, monkeypatch)
    samples = [make_sample(time) for time in range(3)]
    samples[1] = replace(samples[1], **{name: getattr(samples[1], name) * 1.01})
    stream = Stream(detector)
    for frame in frames_of(samples):  # no calibration that a car could have: samples are checked
        stream.push(frame)
    assert len(made) == 3


def test_another_batch_or_image_size_makes_another_code(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = make_detector().eval()
    made, stream = counted(detector, monkeypatch), Stream(detector)
    narrow = make_sample(1, images=make_sample(1).images[..., :48])
    less_padded = make_sample(2, images=make_sample(2).images[..., :50])
    two = [make_sample(3), make_sample(3, "b")]
    for count, samples in enumerate(([make_sample(0)], [narrow], [less_padded], two), start=1):
        stream(samples)
        assert len(made) == count
    stream([make_sample(4), make_sample(4, "b")])
    assert len(made) == 4


@pytest.mark.parametrize(
    "start_over",
    [lambda stream: stream([make_sample(0, "b")]), lambda stream: stream.reset()],
    ids=["another scene", "reset"],
)
def test_no_code_outlives_a_scene_or_a_reset(
    start_over: Callable[[Stream], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So weights that change between streams are seen."""
    detector = make_detector().eval()
    made, stream = counted(detector, monkeypatch), Stream(detector)
    stream([make_sample(0)])
    with torch.no_grad():
        detector.head.token_modulation.gamma.weight.mul_(1.5)
    start_over(stream)
    found = stream([make_sample(1, "c")])
    assert same(found, alone(detector, [make_sample(1, "c")]))
    fresh = make_detector().eval()
    fresh.load_state_dict(detector.state_dict())
    assert same(found, alone(fresh, [make_sample(1, "c")]))
    assert len(made) >= 3


def test_no_code_outlives_the_scene_of_one_row_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = make_detector().eval()
    made, stream = counted(detector, monkeypatch), Stream(detector)
    stream([make_sample(0, "a"), make_sample(0, "b")])
    stream([make_sample(1, "a"), make_sample(1, "b")])
    assert len(made) == 1
    stream([make_sample(2, "a"), make_sample(0, "c")])
    assert len(made) == 2


def test_a_stream_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        Stream(make_detector().eval())([])


@pytest.mark.parametrize("precision", ["float32", None])
def test_the_precision_holds_in_an_ambient_autocast(precision: str | None) -> None:
    detector = make_detector().eval()
    sample = make_sample(0)  # made outside: its matrices are products
    exact = Stream(detector)([sample])[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = Stream(detector, precision)([sample])[0]
    assert torch.equal(found.scores, exact.scores) == (precision == "float32")


def test_a_rig_written_over_in_place_is_another_rig(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera driver may write every calibration into the same memory."""
    detector = make_detector().eval()
    frames = frames_of([make_sample(time) for time in range(3)])
    made, stream = counted(detector, monkeypatch), Stream(detector)
    first = frames[0].rig
    stream.push(frames[0])
    stream.push(replace(frames[1], rig=map_tensors(first, torch.clone)))  # equal by value
    assert len(made) == 1
    first.intrinsics.mul_(2)
    found = stream.push(replace(frames[2], rig=first))
    assert len(made) == 2
    again = Stream(detector)
    again.push(frames_of([make_sample(0)])[0])
    again.push(frames_of([make_sample(1)])[0])
    assert same(found, again.push(replace(frames[2], rig=map_tensors(first, torch.clone))))


def test_a_rig_on_a_device_is_known_by_its_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values cannot be read without waiting. The device is torch's "meta" here."""
    detector = make_detector().eval()
    made, stream = [], Stream(detector.to("meta"))

    def encode_rig(rig: CameraRig, size: tuple[int, int]) -> RigCode:
        made.append(rig)
        return RigCode(rig.intrinsics, rig.intrinsics)

    monkeypatch.setattr(detector.head, "encode_rig", encode_rig)
    monkeypatch.setattr(detector, "detect", lambda frame, memory, code: (frame, memory))
    frame = Frame.collate([make_sample(0)])
    meta = map_tensors(frame, lambda value: move_tensor(value, "meta"))
    for other in (meta, replace(meta)):  # another frame, the same rig
        stream.push(other)
    assert len(made) == 1
    stream.push(replace(meta, rig=map_tensors(meta.rig, torch.clone)))
    assert len(made) == 2
    stream.push(frame)  # on the CPU
    stream.push(meta)
    assert len(made) == 4


def test_a_code_of_another_size_is_refused() -> None:
    detector = make_detector().eval()
    frame = Frame.collate([make_sample(0)])
    code = detector.head.encode_rig(frame.rig, (32, 32))
    with pytest.raises(ValueError, match=r"tokens\) \(1, 24\), the features are of \(1, 48\)"):
        detector.detect(frame, detector.empty_memory(1), code)


def test_push_takes_frames() -> None:
    with pytest.raises(InputError, match=r"push takes a Frame, not a Sample: Frame.collate"):
        Stream(make_detector().eval()).push(make_sample(0))  # type: ignore[arg-type]


def test_a_car_that_jumps_within_a_scene_is_said(caplog: pytest.LogCaptureFixture) -> None:
    first, second = make_sample(0), make_sample(1)
    far = second.lidar_to_global.clone().double()
    far[0, 3] += 1500
    jumped = replace(second, lidar_to_global=far, global_to_lidar=torch.linalg.inv(far))
    stream = Stream(make_detector().eval())
    stream([first])
    stream([second])
    assert not caplog.records
    stream([jumped])
    (record,) = caplog.records
    assert re.search(r"moves by 15\d\d m in .*not its inverse.*scene_token", record.getMessage())
    stream([replace(first, scene_token="another")])
    assert len(caplog.records) == 1
