"""Three files are opened as one export, or one line says why not."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from stub_graphs import STUB, stub_description, write_stub, write_stubs

from streampetr_vit.errors import InputError, MissingFileError, UserError
from streampetr_vit.export.interface import BACKBONE, HEAD, POSITION, Ports
from streampetr_vit.export.sessions import Sessions


def ones(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def test_an_export_is_opened_and_runs(tmp_path: Path) -> None:
    opened = Sessions.open(write_stubs(tmp_path))
    assert opened.description == stub_description() and opened.interface == STUB
    assert opened.backbone(**ones(STUB.backbone.inputs)).shape == STUB.features
    position, cone = opened.position(**ones(STUB.position_embedding.inputs))
    assert position.shape == STUB.position and cone.shape == STUB.cone
    found = opened.head(**ones(STUB.head.inputs))
    assert {name: value.shape for name, value in found.items()} == STUB.head.outputs


def test_onnxruntime_takes_as_many_threads_as_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stubs(tmp_path)
    taken: list[int] = []
    make = onnxruntime.InferenceSession

    def note(path: str, options: Any, **others: Any) -> Any:
        taken.append(options.intra_op_num_threads)
        return make(path, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", note)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    Sessions.open(tmp_path)
    Sessions.open(tmp_path, threads=1)
    assert taken == [3, 3, 3, 1, 1, 1]


Change = Callable[[Path], None]


def rewrite(name: str, shapes: dict[str, Any], types: dict[str, int] | None = None) -> Change:
    """Writes a graph with other shapes; None leaves a tensor out."""

    def act(folder: Path) -> None:
        wanted = STUB.graphs[name]
        changed = Ports(
            *(
                {key: shape for key, shape in (part | shapes).items() if shape and key in part}
                for part in (wanted.inputs, wanted.outputs)
            )
        )
        write_stub(folder / name, changed, stub_description().to_metadata(), types)

    return act


def metadata(name: str, **changes: str | None) -> Change:
    """Changes what one file says of itself."""

    def act(folder: Path) -> None:
        model = onnx.load(folder / name)
        said = {entry.key: entry.value for entry in model.metadata_props} | changes
        del model.metadata_props[:]
        for key, value in said.items():
            if value is not None:
                model.metadata_props.add(key=key, value=value)
        onnx.save(model, folder / name)

    return act


def everywhere(**changes: Any) -> Change:
    """Three files that say something else of themselves."""

    def act(folder: Path) -> None:
        write_stubs(folder, description=replace(stub_description(), **changes))

    return act


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / HEAD).unlink(), f"{HEAD} does not exist: give a folder that tools/export"),
        (lambda f: (f / BACKBONE).write_bytes(b"no graph"), f"{BACKBONE} cannot be opened by onnx"),
        (metadata(POSITION, format=None), f"{POSITION} has no description that this version reads"),
        (
            metadata(HEAD, weights_sha256='"beef"'),
            f"{HEAD} is of another export than {BACKBONE}: its weights_sha256 is 'beef', not '01",
        ),
        (
            metadata(POSITION, frame='"base_link"'),
            f"{POSITION} is of another export than {BACKBONE}: its frame is 'base_link', not 'lid",
        ),
        (metadata(HEAD, recipe="{"), f"{HEAD} has a damaged description .JSONDecodeError: .* anew"),
        (metadata(HEAD, recipe=None), f"{HEAD} has a damaged description .KeyError: 'recipe'.: ex"),
        (rewrite(BACKBONE, {"img": None}), "img has no shape, not one of 5 numbers: export"),
        (
            rewrite(BACKBONE, {"img": ("batch", 2, 3, 32, 64)}),
            r"img has the shape \('batch', 2, 3, 32, 64\), and .* must have \(1, 2, 3, 32, 64\)",
        ),
        (
            rewrite(HEAD, {"pre_memory_velo": None}),
            f"{HEAD} has the inputs x, .*pre_memory_egopose, not x,.*pre_memory_velo: export the",
        ),
        (
            rewrite(HEAD, {"x": (1, 2, 4, 2, 4)}),
            r"x has the shape \(1, 2, 4, 2, 4\), and with the other.* must have \(1, 2, 8, 2, 4\)",
        ),
        (
            rewrite(HEAD, {"all_cls_scores": (5, 3)}),
            r"all_cls_scores has the shape \(5, 3\), not o",
        ),
        (
            rewrite(HEAD, {"post_memory_velo": (1, 6, 3)}),
            r"post_memory_velo has the shape \(1, 6, 3\)",
        ),
        (
            rewrite(POSITION, {}, {"cone": TensorProto.DOUBLE}),
            r"cone is a tensor\(double\), not a tensor\(float\)",
        ),
        (everywhere(classes=("car",)), "say 1 as classes, and have 3: export the three graphs an"),
        (everywhere(cameras=("front",)), "say 1 as cameras, and have 2"),
        (everywhere(image_size=(32, 96)), r"say \(32, 96\) as image_size, and have \(32, 64\)"),
        (everywhere(num_remembered=3), "say 3 as num_remembered, and have 2"),
        (everywhere(num_queries=6), "say 6 as num_queries, and have 5 with those of a memory of 4"),
        (everywhere(num_queries=0), f"{BACKBONE} has a damaged .* num_queries is 0, not a whole"),
        (everywhere(num_remembered=True), "its num_remembered is True, not a whole number above"),
        (everywhere(max_detections=-3), "its max_detections is -3, not a whole number above 0; ex"),
        (everywhere(classes=None), "its classes is None, not a list of names"),
        (everywhere(cameras="abc"), "its cameras is 'abc', not a list of names"),
        (everywhere(image_size=(32,)), r"its image_size is \(32,\), not a height and a width"),
        (everywhere(pixel_mean=(1, 2, math.nan)), r"pixel_mean is \(1, 2, nan\), not 3 numbers"),
        (everywhere(pixel_std=(1, 0, 1)), r"its pixel_std is \(1, 0, 1\), not 3 numbers above 0"),
        (everywhere(input_format="HSV"), "its input_format is 'HSV', not RGB or BGR"),
        (everywhere(frame="map"), "its frame is 'map', not lidar or base_link"),
        (everywhere(precision="int8"), "its precision is 'int8', not fp32 or fp16-backbone"),
        (everywhere(lidar_to_base_link=((1, 0), (0, 1))), r"_link is of shape \(2, 2\): give a 4x"),
        (everywhere(lidar_to_base_link=((0,) * 4,) * 4), "_link has the last row 0 0 0 0, not 0"),
        (everywhere(center_range=(0, 0, 0, 1, 1, 0)), "center_range is .*, not 3 numbers and 3 la"),
        (everywhere(score_threshold="high"), "score_threshold is 'high', not a number or null"),
        (everywhere(frame_period_s=-1), "frame_period_s is -1, not seconds from 0 on"),
        (everywhere(remembers="yes"), "its remembers is 'yes', not true or false"),
        (everywhere(weights_sha256=None), "its weights_sha256 is None, not a text"),
    ],
)
def test_files_that_are_no_export(change: Change, message: str, tmp_path: Path) -> None:
    change(write_stubs(tmp_path))
    with pytest.raises(UserError, match=message) as error:
        Sessions.open(tmp_path)
    assert "\n" not in str(error.value) and isinstance(error.value, (InputError, MissingFileError))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "device='cuda', but onnxruntime .* is a build without CUDA: give cpu, or install"),
        ("cuda:1", "device='cuda:1', but onnxruntime"),
        ("gpu", "device='gpu' is unknown: allowed are .auto., .cpu., .cuda. and .cuda:N."),
    ],
)
def test_devices_that_are_not_there(
    device: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=message):
        Sessions.open(write_stubs(tmp_path), device)


def test_a_gpu_that_onnxruntime_cannot_start_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It warns and goes on with the CPU by itself."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    make, asked = onnxruntime.InferenceSession, []

    def on_cpu(path: str, options: Any, providers: list[Any]) -> Any:
        asked.append(providers)
        return make(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    with pytest.raises(InputError, match="cannot start CUDAExecutionProvider, .* give cpu as devi"):
        Sessions.open(write_stubs(tmp_path), "cuda:1")
    ((name, options), _) = asked[0]
    assert name == both[0] and options == {"device_id": 1, "use_tf32": 0}


def test_without_onnxruntime_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime.* pip install -e '\.\[export\]'"):
        Sessions.open(tmp_path)
