"""Three ONNX files with an export's names and shapes that compute nothing, made in no time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from nuscenes_export import described
from onnx import TensorProto, helper, numpy_helper

from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import Interface, Ports

STUB = Interface(
    cameras=2,
    image_size=(32, 64),
    features=(1, 2, 8, 2, 4),
    position=(1, 16, 8),
    cone=(1, 16, 8),
    embed_dim=8,
    memory_in=4,
    memory_out=6,
    queries=5,
    classes=3,
)


def stub_description(**changes: Any) -> Description:
    """Of `STUB`; `changes` replace attributes."""
    values = dict(
        classes=("car", "bus", "cone"),
        cameras=("front", "rear"),
        image_size=STUB.image_size,
        num_queries=3,
        num_remembered=2,
        frame="lidar",
    )
    return described(**(values | changes))


def write_stubs(
    folder: Path, interface: Interface = STUB, description: Description | None = None
) -> Path:
    """Writes the three files; every output is zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = (description or stub_description()).to_metadata()
    for name, ports in interface.graphs.items():
        write_stub(folder / name, ports, metadata)
    return folder


def write_stub(
    path: Path,
    ports: Ports,
    metadata: Mapping[str, str],
    types: Mapping[str, int] | None = None,
) -> None:
    """Writes one file; `types` are of tensors that are no float32."""
    kinds = types or {}

    def values(tensors: Mapping[str, Any]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in tensors.items()
        ]

    nodes, shapes = [], []
    for name, shape in ports.outputs.items():
        kind = kinds.get(name, TensorProto.FLOAT)
        known = [side if isinstance(side, int) else 1 for side in shape]
        zero = helper.make_tensor("zero", kind, [1], [0])
        shapes.append(numpy_helper.from_array(np.array(known, np.int64), f"shape of {name}"))
        nodes.append(helper.make_node("ConstantOfShape", [f"shape of {name}"], [name], value=zero))
    graph = helper.make_graph(nodes, "stub", values(ports.inputs), values(ports.outputs), shapes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
