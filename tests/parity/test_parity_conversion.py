"""Recorded weights to our names and back: the identity."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest
import torch
from reference_detector import make_detector, write_as_mmcv
from torch import Tensor

from streampetr_vit.checkpoint.adapters import (
    IMAGE_HEAD,
    head_from_streampetr,
    head_to_streampetr,
    image_head_from_streampetr,
    is_rotary_table,
)
from streampetr_vit.checkpoint.conversion import convert_file
from streampetr_vit.checkpoint.files import (
    read_checkpoint,
    write_checkpoint,
    write_mmcv_checkpoint,
)
from streampetr_vit.checkpoint.settings import settings_of

DETECTORS = golden.files_of("detector")
HEADS = [*golden.files_of("head_eval"), *golden.files_of("head_train")]
SPARSE_HEADS = golden.files_of("sparsehead")
YOLOX_HEADS = golden.files_of("yolox_losses")
IMAGE_HEADS = [*golden.files_of("focal_losses"), *YOLOX_HEADS]


def assert_identical(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names, shapes, types and values; rotary tables are computed, not carried."""
    assert set(actual) == set(expected)
    for name, value in expected.items():
        if is_rotary_table(name):
            golden.assert_close(actual[name], value, name, atol=2e-6, rtol=0)
        else:
            assert actual[name].dtype == value.dtype and torch.equal(actual[name], value), name


@pytest.mark.parametrize("path", DETECTORS, ids=lambda path: path.stem)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_detector_file_comes_back_as_it_was(path: Path, ending: str, tmp_path: Path) -> None:
    state_dict = {k: v.float() for k, v in golden.load(path)["state_dict"].items()}
    released, ours, back = (tmp_path / name for name in ("in.pth", f"ours.{ending}", "out.pth"))
    write_as_mmcv(released, state_dict)
    there = convert_file(released)
    assert there.source == "streampetr"
    unused = sum(len(names) for names in there.unused.values())
    made = "head.start_points" in there.tensors and not len(there.tensors["head.start_points"])
    assert len(there.tensors) - made + unused == len(state_dict)
    write_checkpoint(ours, there.tensors, there.settings)
    again = convert_file(ours, target="streampetr")
    assert again.source == "ours"
    write_mmcv_checkpoint(back, again.tensors)
    assert_identical(read_checkpoint(back)["state_dict"], state_dict)


@pytest.mark.filterwarnings("ignore:global_window_size")
@pytest.mark.parametrize("path", DETECTORS, ids=lambda path: path.stem)
def test_a_file_without_settings_takes_them_from_the_model(path: Path, tmp_path: Path) -> None:
    """As a state_dict that a user saved: what the reference needs beside it is the model's."""
    data = golden.load(path)
    detector = make_detector(data, fast=True)
    torch.save(detector.state_dict(), tmp_path / "ours.pth")
    conversion = convert_file(tmp_path / "ours.pth", target="streampetr", model=detector)
    state_dict = {k: v.float() for k, v in data["state_dict"].items()}
    assert_identical(conversion.tensors, state_dict)
    recorded = {k: v for k, v in conversion.settings.items() if k != "rotary"}
    assert recorded == {k: v for k, v in settings_of(detector).items() if k != "rotary"}


@pytest.mark.parametrize("path", [*HEADS, *SPARSE_HEADS], ids=lambda path: path.stem)
def test_a_3d_head_comes_back_as_it_was(path: Path) -> None:
    state_dict = golden.load(path)["state_dict"]
    tensors, constants = head_from_streampetr(state_dict)
    assert len(tensors) == len(set(tensors))
    assert_identical(head_to_streampetr(tensors, constants), state_dict)


@pytest.mark.parametrize("path", IMAGE_HEADS, ids=lambda path: path.stem)
def test_a_2d_head_comes_back_as_it_was(path: Path) -> None:
    state_dict = golden.load(path)["state_dict"]
    tensors = image_head_from_streampetr(state_dict)
    assert len(tensors) == len(state_dict)
    assert_identical({IMAGE_HEAD.to_foreign(k) or k: v for k, v in tensors.items()}, state_dict)
