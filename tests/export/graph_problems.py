"""What a TensorRT engine of an ONNX file, or the node that loads it, would stumble over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto

Shapes = dict[str, tuple[int, ...]]

LARGEST_BYTES = 2**31
OPSETS = range(18, 21)

# Branches, loops, and operators whose output's shape depends on values.
FORBIDDEN = {"If", "Loop", "Scan", "NonZero", "Compress", "Unique", "NonMaxSuppression"}
FORBIDDEN |= {"ScatterND", "SequenceAt", "SequenceConstruct", "SplitToSequence", "Optional"}
# Inputs that say the shape of the output. They must not be computed from what comes in.
SHAPING: dict[str, slice] = {
    "ConstantOfShape": slice(0, None),
    "Range": slice(0, None),
    "Reshape": slice(1, None),
    "Expand": slice(1, None),
    "Slice": slice(1, None),
    "TopK": slice(1, None),
    "Tile": slice(1, None),
    "Pad": slice(1, 2),
    "Split": slice(1, None),
    "Squeeze": slice(1, None),
    "Unsqueeze": slice(1, None),
    "Resize": slice(1, None),
    "OneHot": slice(1, 2),
    "Trilu": slice(1, None),
}


def problems_of_file(path: Path, inputs: Shapes, outputs: Shapes) -> list[str]:
    """A line for each problem of a file; see `problems_of_model`."""
    size = path.stat().st_size
    problems = [f"{size} bytes"] if size >= LARGEST_BYTES else []
    model = onnx.load(str(path), load_external_data=False)
    problems += problems_of_model(model, inputs, outputs)
    if not problems:
        onnx.checker.check_model(str(path), full_check=True)
    return problems


def problems_of_model(model: ModelProto, inputs: Shapes, outputs: Shapes) -> list[str]:
    """A line for each problem of a graph.

    Args:
        model: without its external data.
        inputs, outputs: name -> shape of all that there must be. More outputs may be there.
    """
    graph, problems = model.graph, []
    for what, values, wanted in (("input", graph.input, inputs), ("output", graph.output, outputs)):
        given = {value.name: value.type.tensor_type for value in values}
        if len(given) < len(values):
            problems.append(f"two {what}s have one name")
        problems += [f"no {what} {name}" for name in wanted.keys() - given.keys()]
        if what == "input":  # the node would never fill it
            problems += [f"{what} {name} is too much" for name in given.keys() - wanted.keys()]
        for name, tensor in given.items():
            if tensor.elem_type != TensorProto.FLOAT:
                problems.append(f"{name} is {TensorProto.DataType.Name(tensor.elem_type)}")
            shape = tuple(_size(dim) for dim in tensor.shape.dim)
            if name in wanted and shape != wanted[name]:
                problems.append(f"{name} is {shape}, not {wanted[name]}")
            if None in shape or not tensor.HasField("shape"):
                problems.append(f"{name} has a size that is not fixed")
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("") not in OPSETS:
        problems.append(f"opset {opsets.get('')}")
    if model.functions:
        problems.append(f"functions of its own: {[f.name for f in model.functions]}")
    tensors = [*graph.initializer, *_constants(graph.node)]
    problems += [
        f"{t.name} is in another file" for t in tensors if t.data_location == TensorProto.EXTERNAL
    ]
    foreign = [node for node in graph.node if node.domain not in ("", "ai.onnx")]
    problems += [f"operator {node.domain}.{node.op_type}" for node in foreign]
    kinds = {node.op_type for node in graph.node}
    problems += [f"operator {kind}" for kind in sorted(kinds & FORBIDDEN)]
    problems += _shaped_by_values(model)
    problems += [f"nothing uses {name}" for name in sorted(_unused(model))]
    if not problems:
        problems += _unknown_shapes(model)
    return problems


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None


def _constants(nodes: Sequence[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _shaped_by_values(model: ModelProto) -> list[str]:
    """Nodes whose output's shape depends on the inputs' values."""
    changing = {value.name for value in model.graph.input}
    problems = []
    for node in model.graph.node:  # in the order of computation
        shaping = node.input[SHAPING[node.op_type]] if node.op_type in SHAPING else ()
        if node.op_type.startswith("Reduce"):
            shaping = node.input[1:]
        if changing & set(shaping):
            problems.append(f"{node.op_type} {node.name}: its shape depends on values")
        if node.op_type not in ("Shape", "Size") and changing & set(node.input):
            changing |= set(node.output)
    return problems


def _unused(model: ModelProto) -> set[str]:
    """Inputs that no output depends on: TensorRT drops them, and the node then crashes."""
    needed = {value.name for value in model.graph.output}
    for node in reversed(model.graph.node):
        if needed & set(node.output) and node.op_type not in ("Shape", "Size"):
            needed |= set(node.input)
    return {value.name for value in model.graph.input} - needed


def _unknown_shapes(model: ModelProto) -> list[str]:
    """Tensors inside whose shape is not known before the graph runs."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {v.name for v in (*inferred.value_info, *inferred.output) if _is_known(v)}
    made = {name for node in inferred.node for name in node.output if name}
    return [f"{name} has no fixed shape" for name in sorted(made - known)]


def _is_known(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
