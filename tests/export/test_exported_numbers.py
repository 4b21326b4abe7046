"""Exported graphs, run as Autoware's node runs them, give the detector's numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import export_tiny
from tiny_detector import make_detector, make_repdetr3d

from streampetr_vit.errors import InputError
from streampetr_vit.export.interface import BACKBONE, GRAPHS, HEAD
from streampetr_vit.export.parity import TOLERANCE, WIPED_AFTER, measure
from streampetr_vit.export.sessions import Sessions
from streampetr_vit.modeling.detector import StreamPETR


def cut_windows(plain: bool = False) -> StreamPETR:
    """Windows that the border of the map cuts: one row and one column of three are padding."""
    detector = make_detector(prior_sigma_cells=2.5)
    for block in detector.backbone.net.blocks:
        block.attn.window_size = 3
        block.attn.rope = None
    detector.backbone.net.plain = plain
    return detector


# Each is exported once, because that takes seconds: what makes it, and the frame that it speaks.
KINDS: dict[str, tuple[Callable[[], StreamPETR], str]] = {
    "StreamPETR": (make_detector, "lidar"),
    "cut windows and a prior": (cut_windows, "base_link"),
    "zero-padded windows": (lambda: cut_windows(plain=True), "lidar"),
    "RepDETR3D": (make_repdetr3d, "base_link"),
}


@dataclass(frozen=True)
class Export:
    """A detector, and the folder of its graphs."""

    detector: StreamPETR
    folder: Path


@pytest.fixture(scope="module", params=KINDS)
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Export:
    make, frame = KINDS[request.param]
    detector, folder = make().eval(), tmp_path_factory.mktemp("graphs")
    export_tiny(detector, folder, frame=frame)
    return Export(detector, folder)


def test_six_frames_with_a_wipe(export: Export) -> None:
    parity = measure(export.detector, Sessions.open(export.folder))
    assert len(parity.by_frame) == 2 * WIPED_AFTER
    assert max(parity.largest.values()) < TOLERANCE, parity.largest
    assert set(parity.largest) >= {"logits", "codes", "embedding", "egopose", "velo"}


def test_other_weights_are_noticed(export: Export) -> None:
    # Those of each graph: of the pictures, of the cameras, of the start of a stream and of the end.
    weights = ["backbone.net.blocks.0.attn.v_proj.weight", "head.start_points"]
    weights += ["head.token_modulation.reduce.weight", "head.class_branch.0.weight"]
    with torch.no_grad():
        for name in weights:
            altered = copy.deepcopy(export.detector)
            altered.state_dict()[name].mul_(0.9)
            try:
                largest = measure(altered, Sessions.open(export.folder)).largest
            except InputError as error:
                assert "do not remember the same queries" in str(error)
            else:
                assert max(largest.values()) > 10 * TOLERANCE, name


def test_a_clock_that_counts_anew_starts_a_stream(export: Export) -> None:
    sessions = Sessions.open(export.folder)
    generator = np.random.default_rng(0)
    inputs = {
        name: generator.normal(size=shape).astype(np.float32)
        for name, shape in sessions.interface.head.inputs.items()
    }
    inputs["pre_memory_egopose"][:, 0, 3, 3] = 1
    inputs["pre_memory_timestamp"][:, 0] = 0.5
    goes_on = sessions.head(**inputs)
    inputs["pre_memory_timestamp"][:, 0] = -599.5
    anew = sessions.head(**inputs)
    for name in inputs:
        if "memory" in name:
            inputs[name][:] = 0
    wiped = sessions.head(**inputs)
    for name, value in wiped.items():
        assert np.array_equal(anew[name], value)
        assert not np.array_equal(goes_on[name], value)


def test_graphs_have_plain_operators_alone(export: Export) -> None:
    for name in GRAPHS:
        model = onnx.load(export.folder / name)
        assert not model.functions
        assert {node.domain for node in model.graph.node} == {""}
        operators = {node.op_type for node in model.graph.node}
        # What TensorRT cannot parse, waits for values, or makes shapes of them.
        refused = {"ScatterND", "ScatterElements", "If", "Loop", "NonZero", "Unique"}
        assert not operators & refused, (name, operators & refused)


def test_half_precision_is_near_and_not_the_same(tmp_path: Path) -> None:
    detector = make_detector().eval()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    export_tiny(detector, tmp_path, precision="fp16-backbone")
    after = detector.state_dict()  # the detector stays as it was
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    largest = measure(detector, Sessions.open(tmp_path)).largest
    assert 1e-6 < largest["logits"] < 0.05
    types = {tensor.data_type for tensor in onnx.load(tmp_path / BACKBONE).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types
    head = {tensor.data_type for tensor in onnx.load(tmp_path / HEAD).graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in head
