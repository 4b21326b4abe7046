"""Samples that cannot be what they say are refused, by name, value and fix; good ones pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_detector import cameras, make_bare_detector, make_detector, make_sample, same
from torch import Tensor

from streampetr_vit.benchmark.inputs import made_up_sample
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.transforms import ImageAugmentation, SceneAugmentation
from streampetr_vit.errors import InputError
from streampetr_vit.inference import Stream
from streampetr_vit.structures import Sample
from streampetr_vit.structures.sample_checks import check_sample

GOOD = make_sample(0)
NORMALISED = (GOOD.images.float() - 120) / 58


def pose(translation_m: tuple[float, float, float], dtype: torch.dtype) -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor(translation_m, dtype=torch.float64)
    return matrix.to(dtype)


def posed(x: float, y: float, dtype: torch.dtype) -> Sample:
    return replace(
        GOOD,
        lidar_to_global=pose((x, y, 0), dtype),
        global_to_lidar=pose((-x, -y, 0), dtype),
    )


def with_nan(value: Tensor) -> Tensor:
    value = value.clone()
    value[..., 0, 3] = float("nan")
    return value


def changed(name: str, change: Callable[[Tensor], object]) -> Callable[[], Sample]:
    return lambda: replace(GOOD, **{name: change(getattr(GOOD, name))})


def seconds(value: float, dtype: torch.dtype = torch.float64) -> Callable[[], Sample]:
    return lambda: replace(GOOD, timestamp_s=torch.tensor(value, dtype=dtype))


def one_camera() -> Sample:
    return cameras(GOOD, lambda value: value[:1])


def turns(first_rad: float, others_rad: float) -> Tensor:
    """(6, 4, 4): turns about z, one for the first camera and one for the others."""
    yaw = torch.tensor([first_rad] + [others_rad] * 5)
    matrices = torch.eye(4).repeat(6, 1, 1)
    matrices[:, 0, 0] = matrices[:, 1, 1] = yaw.cos()
    matrices[:, 1, 0], matrices[:, 0, 1] = yaw.sin(), -yaw.sin()
    return matrices


def upside_down(value: Tensor) -> Tensor:
    return value @ torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0]))


BAD: dict[str, tuple[Callable[[], Sample], str]] = {
    "numpy": (changed("intrinsics", Tensor.numpy), "intrinsics is a ndarray: make a torch.Tensor"),
    "flag": (changed("continues_stream", bool), "continues_stream is a bool: make a torch.Tensor"),
    "device": (changed("intrinsics", lambda x: x.to("meta")), "intrinsics is on meta: leave"),
    "no cameras": (changed("images", lambda x: x[0]), r"images has the shape \(3, 32, 64\): give"),
    "channels last": (
        changed("images", lambda x: x.permute(0, 2, 3, 1)),
        r"images has the shape \(6, 32, 64, 3\).*images.permute\(0, 3, 1, 2\)",
    ),
    "0 to 1": (changed("images", lambda x: x / 255), "values from 0.* to .*give uint8 RGB"),
    "0 to 255": (changed("images", Tensor.float), "values from .*give uint8 RGB"),
    "NaN pixels": (changed("images", lambda x: x * float("nan")), "values from nan"),
    "int pixels": (changed("images", Tensor.int), "images is torch.int32: give uint8 RGB"),
    "5 of 6 cameras": (
        changed("lidar_to_image", lambda x: x[:5]),
        r"lidar_to_image is \(5, 4, 4\) of float32: .*as images has 6 cameras",
    ),
    "3x3": (changed("intrinsics", lambda x: x[:, :3, :3]), r"\(6, 3, 3\).*upper left of torch.eye"),
    "3x4": (changed("lidar_to_camera", lambda x: x[:, :3]), r"\(6, 3, 4\).*add the row 0 0 0 1"),
    "3x4 pose": (changed("lidar_to_global", lambda x: x[:3]), r"\(3, 4\) of.*add the row 0 0 0 1"),
    "batched pose": (changed("lidar_to_global", lambda x: x[None]), r"\(1, 4, 4\).*give \(4, 4\)"),
    "int pose": (changed("lidar_to_global", Tensor.long), r"\(4, 4\) of int64: give"),
    "rows": (
        changed("lidar_to_global", lambda x: x.T),
        "lidar_to_global has the last row 600 0 0 1, not 0 0 0 1.*transpose",
    ),
    "scaled pose": (
        changed("lidar_to_global", lambda x: x @ torch.diag(torch.tensor([1e3, 1e3, 1e3, 1]))),
        "lidar_to_global is no rigid pose",
    ),
    "mirrored pose": (changed("lidar_to_global", upside_down), "lidar_to_global is no rigid pose"),
    "no pose": (
        changed("lidar_to_global", lambda x: torch.diag(torch.tensor([0.0, 0, 0, 1]))),
        "lidar_to_global is no rigid pose",
    ),
    "not inverted": (
        changed("global_to_lidar", lambda x: GOOD.lidar_to_global),
        "global_to_lidar is not the inverse of lidar_to_global: give",
    ),
    "far in float32": (
        lambda: posed(5e5, 5e6, torch.float32),
        "lidar_to_global is float32 and 5000000 m from the origin.*to 0.5 m: give float64",
    ),
    "scaled camera": (
        changed("lidar_to_camera", lambda x: x @ torch.diag(torch.tensor([2.0, 2, 2, 1]))),
        "lidar_to_camera of camera 0 .*no rotation: leave out scale",
    ),
    "projection as camera": (
        changed("lidar_to_camera", lambda x: GOOD.lidar_to_image),
        "lidar_to_camera of camera 0 .*no rotation",
    ),
    "mirrored camera": (changed("lidar_to_camera", upside_down), "camera 0 .*no rotation"),
    "camera on the map": (
        changed("lidar_to_camera", lambda x: x @ GOOD.lidar_to_global),
        r"lidar_to_camera of camera \d has a translation of 600 m",
    ),
    "inverted camera": (
        changed("lidar_to_camera", torch.inverse),
        "lidar_to_image of camera 0 is not intrinsics @ lidar_to_camera.*not its inverse",
    ),
    "an inverted camera alone": (
        lambda: replace(one_camera(), lidar_to_camera=torch.inverse(GOOD.lidar_to_camera[:1])),
        "lidar_to_image of camera 0 is not intrinsics @ lidar_to_camera.*not its inverse",
    ),
    "cameras turned apart": (
        lambda: replace(GOOD, lidar_to_image=GOOD.lidar_to_image @ turns(0.0, 0.1)),
        "lidar_to_image of camera 1 is not intrinsics @ lidar_to_camera",
    ),
    "focal length in metres": (
        lambda: replace(
            GOOD,
            intrinsics=GOOD.intrinsics @ torch.diag(torch.tensor([1e-3, 1e-3, 1, 1])),
        ),
        "intrinsics of camera 0 has the focal lengths 0.04 and 0.041 for a picture of 64 x 32",
    ),
    "transposed intrinsics": (
        changed("intrinsics", lambda x: x.mT),
        "intrinsics of camera 0 has the third row 32 16 1 0, not 0 0 1 0",
    ),
    "half the size": (
        changed("images", lambda x: x[..., ::2, ::2]),
        r"principal point \(32, 16\) outside of its picture of 32 x 16",
    ),
    "calibration of one picture for another": (
        changed("lidar_to_image", lambda x: x * torch.tensor([2.0, 2, 1, 1])[:, None]),
        "lidar_to_image of camera 0 is not intrinsics @ lidar_to_camera",
    ),
    "cameras in another order": (
        changed("lidar_to_image", lambda x: x.roll(1, 0)),
        "lidar_to_image of camera 0 is not",
    ),
    "milliseconds": (seconds(1.5e12), r"timestamp_s is 1.5e\+12, as milliseconds.*by 1e3"),
    "microseconds": (seconds(1.5e15), r"timestamp_s is 1.5e\+15, as microseconds.*by 1e6"),
    "nanoseconds": (seconds(1.5e18), r"timestamp_s is 1.5e\+18, as nanoseconds.*by 1e9"),
    "no time": (seconds(float("nan")), "timestamp_s is nan: give seconds"),
    "endless time": (seconds(float("inf")), "timestamp_s is inf: give seconds"),
    "float32 time": (seconds(1.5e9, torch.float32), r"timestamp_s is \(\) of float32.*to 128 s"),
    "whole seconds": (seconds(1, torch.int64), r"timestamp_s is \(\) of int64: give \(\) of float"),
    "a list of times": (changed("timestamp_s", lambda x: x[None]), r"timestamp_s is \(1,\) of"),
}
BAD["half precision"] = (
    changed("intrinsics", lambda x: x.half()),
    r"intrinsics is .* of float16: give .* of float32 or float64",
)
BAD["no data"] = (changed("images", lambda x: x.to("meta")), "images is on the meta device")
for _name in (
    "intrinsics",
    "lidar_to_camera",
    "lidar_to_image",
    "lidar_to_global",
    "global_to_lidar",
):
    BAD[f"NaN in {_name}"] = (changed(_name, with_nan), f"{_name} has entries that are NaN")


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused(make: Callable[[], Sample], message: str) -> None:
    with pytest.raises(InputError, match=f"^sample a-0: .*{message}"):
        check_sample(make())


GOOD_ONES: dict[str, Callable[[], Sample]] = {
    "as it is": lambda: GOOD,
    "normalised": lambda: replace(GOOD, images=NORMALISED),
    "grey": lambda: replace(GOOD, images=torch.zeros_like(NORMALISED)),
    "float64": lambda: replace(
        GOOD, intrinsics=GOOD.intrinsics.double(), lidar_to_camera=GOOD.lidar_to_camera.double()
    ),
    "UTM": lambda: posed(5e5, 5e6, torch.float64),
    "times from 0": lambda: replace(GOOD, timestamp_s=torch.zeros((), dtype=torch.float64)),
    "flipped": lambda: replace(
        GOOD,
        intrinsics=_flip() @ GOOD.intrinsics,
        lidar_to_image=_flip() @ GOOD.lidar_to_image,
    ),
    "the sky cut off": lambda: replace(
        GOOD,
        intrinsics=_lower(-40) @ GOOD.intrinsics,
        lidar_to_image=_lower(-40) @ GOOD.lidar_to_image,
    ),
    "one camera": lambda: one_camera(),
    "scene turned": lambda: replace(GOOD, lidar_to_image=GOOD.lidar_to_image @ turns(0.1, 0.1)),
    "of the benchmark": lambda: made_up_sample((320, 800)),
}


def _flip() -> Tensor:
    matrix = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    matrix[0, 2] = 64
    return matrix


def _lower(pixels: float) -> Tensor:
    matrix = torch.eye(4)
    matrix[1, 2] = pixels
    return matrix


@pytest.mark.parametrize("make", GOOD_ONES.values(), ids=GOOD_ONES)
def test_what_can_be_passes(make: Callable[[], Sample]) -> None:
    check_sample(make())


def test_samples_of_the_mapper_pass_whatever_was_drawn(tiny_nuscenes: Path) -> None:
    records = load_split(tiny_nuscenes, "v1.0-mini", "mini_train")
    mapper = NuScenesMapper(
        training=True,
        image_aug=ImageAugmentation((160, 400), (0.75, 2.5)),
        scene_aug=SceneAugmentation(translation_std_m=(0.5, 0.5, 0.5)),
    )
    for seed in range(20):
        sample = mapper(records[seed % 3], rng=np.random.default_rng(seed))
        check_sample(sample, random_crop=True)
    fixed = NuScenesMapper(training=False, image_aug=ImageAugmentation((160, 400), (1.0, 1.0)))
    check_sample(fixed(records[0]))


def test_streams_and_stock_loops_check_their_samples() -> None:
    bad = BAD["3x3"][0]()
    with pytest.raises(InputError, match="sample a-0: intrinsics"):
        Stream(make_detector().eval())([GOOD, bad])
    for model in (make_bare_detector().eval(), make_bare_detector().train()):
        with pytest.raises(InputError, match="sample a-0: intrinsics"):
            model([bad.as_dict()])
    with pytest.raises(InputError, match="sample a-0: intrinsics"):
        make_bare_detector().train()([[GOOD, bad]])


def test_a_stream_takes_lists_of_samples_or_dicts_whose_pictures_are_alike() -> None:
    stream = Stream(make_detector().eval())
    with pytest.raises(InputError, match=r"a list of samples, one for each stream: stream\(\[sam"):
        stream(GOOD)
    with pytest.raises(InputError, match="at least one sample"):
        stream([])
    with pytest.raises(InputError, match="give one Sample or dict per stream, not str"):
        stream(["a"])
    for images in (GOOD.images[..., :48], NORMALISED):
        with pytest.raises(InputError, match=r"sample b-0 has images \(6, 3, 32, .*in a Stream of"):
            stream([GOOD, make_sample(0, "b", images=images)])
    assert same(stream([GOOD.as_dict()]), Stream(make_detector().eval())([GOOD]))


@pytest.mark.parametrize("unit", [1e-6, 1e-3])
def test_a_scene_in_milliseconds_from_zero_is_found_in_its_second_frame(unit: float) -> None:
    """At 20 frames a second; of the first one nothing can be told."""
    stream = Stream(make_detector().eval())

    def at(time_s: float) -> Sample:
        return replace(GOOD, timestamp_s=torch.tensor(time_s / unit, dtype=torch.float64))

    stream([at(0)])
    with pytest.raises(InputError, match=r"from 0.0+ to 50.* within scene a, by more than 30 s"):
        stream([at(0.05)])
    assert len(stream([replace(at(0.05), scene_token="b")])) == 1
    stream.reset()
    assert len(stream([at(0.05)])) == 1
    forgets = Stream(make_detector().eval(), memory=False)
    assert all(len(forgets([at(time)])) == 1 for time in (0, 0.05))
