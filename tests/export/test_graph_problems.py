"""The static check of graphs finds each thing that it is there for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_problems import problems_of_file, problems_of_model
from onnx import ModelProto, TensorProto, helper, numpy_helper

INPUTS = {"a": (1, 2, 3), "b": (4,)}
OUTPUTS = {"c": (1, 3, 2), "d": (4,)}


def tensor(
    name: str, shape: tuple[int | str, ...], kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(*, opset: int = 18) -> ModelProto:
    """c = a, transposed through a reshape; d = b + sum of a."""
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["a"], ["turned"], perm=[2, 1, 0], name="turn"),
            helper.make_node("Reshape", ["turned", "shape"], ["c"], name="reshape"),
            helper.make_node("ReduceSum", ["a"], ["sum"], keepdims=0, name="sum"),
            helper.make_node("Add", ["b", "sum"], ["d"], name="add"),
        ],
        "graph",
        [tensor(name, shape) for name, shape in INPUTS.items()],
        [tensor(name, shape) for name, shape in OUTPUTS.items()],
        [numpy_helper.from_array(np.array([1, 3, 2]), "shape")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def rename_input(m: ModelProto) -> None:
    m.graph.input[0].name = m.graph.node[0].input[0] = m.graph.node[2].input[0] = "A"


def rename_output(m: ModelProto) -> None:
    m.graph.output[0].name = m.graph.node[1].output[0] = "C"


def one_input_more(m: ModelProto) -> None:
    m.graph.input.append(tensor("time", (4,)))
    m.graph.node[3].input[0] = "later"
    m.graph.node.insert(3, helper.make_node("Add", ["b", "time"], ["later"]))


def int64_input(m: ModelProto) -> None:
    m.graph.input[1].CopyFrom(tensor("b", (4,), TensorProto.INT64))


def bool_output(m: ModelProto) -> None:
    m.graph.output[1].CopyFrom(tensor("d", (4,), TensorProto.BOOL))


def half_output_beside(m: ModelProto) -> None:
    m.graph.output.append(tensor("half", (4,), TensorProto.FLOAT16))
    m.graph.node.append(helper.make_node("Cast", ["b"], ["half"], to=TensorProto.FLOAT16))


def another_shape(m: ModelProto) -> None:
    m.graph.input[0].CopyFrom(tensor("a", (1, 3, 2)))


def free_batch(m: ModelProto) -> None:
    m.graph.input[0].CopyFrom(tensor("a", ("batch", 2, 3)))


def unused_input(m: ModelProto) -> None:
    m.graph.node[3].input[0] = "sum"


def input_used_for_its_shape_only(m: ModelProto) -> None:
    m.graph.node[3].input[0] = "size"
    m.graph.node.insert(3, helper.make_node("Cast", ["of_b"], ["size"], to=TensorProto.FLOAT))
    m.graph.node.insert(3, helper.make_node("Shape", ["b"], ["of_b"]))


def input_used_where_nobody_looks(m: ModelProto) -> None:
    unused_input(m)
    m.graph.node.append(helper.make_node("Neg", ["b"], ["nowhere"]))


def scatter(m: ModelProto) -> None:
    m.graph.initializer.append(numpy_helper.from_array(np.array([[0]]), "where"))
    m.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    m.graph.node[3].output[0] = "before"
    m.graph.node.append(helper.make_node("ScatterND", ["before", "where", "zero"], ["d"]))


def nonzero(m: ModelProto) -> None:
    m.graph.node.append(helper.make_node("NonZero", ["b"], ["found"]))


def branch(m: ModelProto) -> None:
    same = helper.make_node("Identity", ["b"], ["out"])
    body = helper.make_graph([same], "body", [], [tensor("out", (4,))])
    m.graph.node.insert(0, helper.make_node("Cast", ["one"], ["yes"], to=TensorProto.BOOL))
    m.graph.initializer.append(numpy_helper.from_array(np.array(1), "one"))
    m.graph.node.append(helper.make_node("If", ["yes"], ["x"], then_branch=body, else_branch=body))


def custom_operator(m: ModelProto) -> None:
    m.graph.node[3].domain = "com.microsoft"
    m.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def shape_from_values(m: ModelProto) -> None:
    m.graph.node.insert(1, helper.make_node("Cast", ["b"], ["counts"], to=TensorProto.INT64))
    m.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    m.graph.node.append(helper.make_node("Slice", ["a", "counts", "counts"], ["cut"], name="cut"))


def external(m: ModelProto) -> None:
    onnx.external_data_helper.set_external_data(m.graph.initializer[0], "weights.data")


def external_constant(m: ModelProto) -> None:
    value = m.graph.initializer.pop()
    onnx.external_data_helper.set_external_data(value, "weights.data")
    m.graph.node.insert(0, helper.make_node("Constant", [], ["shape"], value=value))


def old_opset(m: ModelProto) -> None:
    m.opset_import[0].version = 17


def new_opset(m: ModelProto) -> None:
    m.opset_import[0].version = 21


FAULTS: dict[Callable[[ModelProto], None], str] = {
    rename_input: "no input a",
    rename_output: "no output c",
    one_input_more: "input time is too much",
    int64_input: "b is INT64",
    bool_output: "d is BOOL",
    half_output_beside: "half is FLOAT16",
    another_shape: "a is (1, 3, 2), not (1, 2, 3)",
    free_batch: "a has a size that is not fixed",
    unused_input: "nothing uses b",
    input_used_for_its_shape_only: "nothing uses b",
    input_used_where_nobody_looks: "nothing uses b",
    scatter: "operator ScatterND",
    nonzero: "operator NonZero",
    branch: "operator If",
    custom_operator: "operator com.microsoft.Add",
    shape_from_values: "Slice cut: its shape depends on values",
    external: "shape is in another file",
    external_constant: "shape is in another file",
    old_opset: "opset 17",
    new_opset: "opset 21",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found(fault: Callable[[ModelProto], None]) -> None:
    faulty = model()
    fault(faulty)
    assert FAULTS[fault] in problems_of_model(faulty, INPUTS, OUTPUTS)


@pytest.mark.parametrize("opset", [18, 20])
def test_a_sound_graph_is_one(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "sound.onnx"
    onnx.save(model(opset=opset), str(path))
    assert not problems_of_file(path, INPUTS, OUTPUTS)


def test_more_outputs_are_allowed() -> None:
    assert not problems_of_model(model(), INPUTS, {"c": OUTPUTS["c"]})


def test_a_shape_that_is_not_known_before_the_run_is_found() -> None:
    unclear = model()
    graph = unclear.graph
    graph.initializer.append(numpy_helper.from_array(np.array([36.0], np.float32), "square"))
    graph.node.append(helper.make_node("Sqrt", ["square"], ["root"]))
    graph.node.append(helper.make_node("Cast", ["root"], ["six"], to=TensorProto.INT64))
    graph.node.append(helper.make_node("Reshape", ["a", "six"], ["flat"]))
    assert problems_of_model(unclear, INPUTS, OUTPUTS) == ["flat has no fixed shape"]
