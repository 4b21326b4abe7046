"""Exported graphs, run as Autoware's node runs them, give the detector's numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from exported import FLOAT32, Export

from streampetr_vit.errors import InputError
from streampetr_vit.export.interface import BACKBONE, GRAPHS, HEAD
from streampetr_vit.export.parity import TOLERANCE, WIPED_AFTER, measure
from streampetr_vit.export.sessions import Sessions


@pytest.fixture(params=FLOAT32)
def export(request: pytest.FixtureRequest, exported: Callable[[str], Export]) -> Export:
    return exported(request.param)


def test_six_frames_with_a_wipe(export: Export) -> None:
    parity = measure(export.detector, Sessions.open(export.folder))
    assert len(parity.by_frame) == 2 * WIPED_AFTER
    assert max(parity.largest.values()) < TOLERANCE, parity.largest
    assert set(parity.largest) >= {"logits", "codes", "embedding", "egopose", "velo"}


def test_other_weights_are_noticed(exported: Callable[[str], Export]) -> None:
    export = exported("lidar")
    sessions = Sessions.open(export.folder)
    # Those of each graph: of the pictures, of the cameras, of the start of a stream and of the end.
    weights = ["backbone.net.blocks.0.attn.v_proj.weight", "head.start_points"]
    weights += ["head.token_modulation.reduce.weight", "head.class_branch.0.weight"]
    with torch.no_grad():
        for name in weights:
            altered = copy.deepcopy(export.detector)
            altered.state_dict()[name].mul_(0.9)
            try:
                largest = measure(altered, sessions).largest
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


def test_half_precision_is_near_and_not_the_same(exported: Callable[[str], Export]) -> None:
    export = exported("half")
    # The detector stays as it was: an export must not round the weights of a training.
    assert {value.dtype for value in export.detector.parameters()} == {torch.float32}
    largest = measure(export.detector, Sessions.open(export.folder)).largest
    assert 1e-6 < largest["logits"] < 0.05
    types = {tensor.data_type for tensor in onnx.load(export.folder / BACKBONE).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types
    head = {tensor.data_type for tensor in onnx.load(export.folder / HEAD).graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in head
