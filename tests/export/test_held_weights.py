"""The graphs hold every weight of the detector, and it shows if they do not."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import KINDS, Export, apart
from onnx import ModelProto, numpy_helper
from tiny_detector import make_detector
from torch import nn

from streampetr_vit.errors import CheckpointError
from streampetr_vit.export.folded_weights import folded_weights
from streampetr_vit.export.held_weights import check_held
from streampetr_vit.export.interface import BACKBONE, HEAD, POSITION
from streampetr_vit.modeling.detector import StreamPETR


@pytest.fixture
def export(exported: Callable[[str], Export]) -> Export:
    return exported("lidar")


@pytest.fixture
def tiny(export: Export) -> StreamPETR:
    """The detector that was exported, for changes."""
    return copy.deepcopy(export.detector)


@pytest.fixture
def folder(export: Export, tmp_path: Path) -> Path:
    """Its graphs, for changes."""
    return shutil.copytree(export.folder, tmp_path / "export")


def change(folder: Path, name: str, how: Callable[[ModelProto], None]) -> None:
    model = onnx.load(folder / name)
    how(model)
    onnx.save(model, folder / name)


def refusal(folder: Path, detector: StreamPETR) -> str:
    with pytest.raises(CheckpointError) as error:
        check_held(folder, detector)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def constant(model: ModelProto, value: np.ndarray) -> onnx.TensorProto:
    """The constant of a graph with a value, by whatever name."""
    (found,) = [
        t for t in model.graph.initializer if np.array_equal(numpy_helper.to_array(t), value)
    ]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_export_passes(kind: str, exported: Callable[[str], Export]) -> None:
    export = exported(kind)
    before = copy.deepcopy(export.detector.state_dict())
    check_held(export.folder, export.detector)
    after = export.detector.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())


@pytest.mark.parametrize(
    ("graph", "name"),
    [
        (BACKBONE, "backbone.net.patch_embed.proj.weight"),
        (BACKBONE, "backbone.net.blocks.1.attn.v_bias"),
        (BACKBONE, "head.token_embed.0.weight"),  # turned round and renamed
        (POSITION, "head.position_encoder.mlp.2.weight"),
        (HEAD, "head.class_branch.6.weight"),
        (HEAD, "head.decoder.layers.1.norms.2.bias"),
    ],
)
def test_a_constant_that_is_gone_or_altered(
    folder: Path, tiny: StreamPETR, graph: str, name: str
) -> None:
    value = tiny.state_dict()[name].numpy()
    is_turned = value.ndim == 2 and name.startswith("head.")

    def alter(model: ModelProto) -> None:
        tensor = constant(model, value.T if is_turned else value)
        array = numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[-1] += 1e-6
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    def remove(model: ModelProto) -> None:
        for tensor in [t for t in model.graph.initializer if value.size == np.prod(t.dims)]:
            same = numpy_helper.to_array(tensor).reshape(-1)
            if np.allclose(same, value.reshape(-1), atol=1e-5) or np.allclose(
                same, value.T.reshape(-1), atol=1e-5
            ):
                model.graph.initializer.remove(tensor)

    change(folder, graph, alter)
    word = "miss 1" if is_turned else "have other values in 1"
    assert f"the exported graphs {word} ({name}) of the detector's" in refusal(folder, tiny)
    change(folder, graph, remove)
    assert f"the exported graphs miss 1 ({name}) of the detector's" in refusal(folder, tiny)


@pytest.mark.parametrize("name", ["backbone.net.pos_embed", "head.start_points"])
def test_what_the_exporter_computes_from_a_weight(
    export: Export, tiny: StreamPETR, name: str
) -> None:
    with torch.no_grad():
        tiny.state_dict()[name][..., -1, :] *= 1.001
    assert f"miss 1 ({name})" in refusal(export.folder, tiny)


def test_a_layer_in_anothers_place(export: Export) -> None:
    detector = copy.deepcopy(export.detector)
    detector.head.decoder.layers[0].feedforward[0] = nn.Linear(32, 32)
    detector.backbone.net.blocks[0].mlp.w1 = nn.Linear(32, 85)
    message = refusal(export.folder, detector)
    assert (
        "miss 1 (head.decoder.layers.0.feedforward.0.weight) and have other values in 3" in message
    )
    assert (
        "(backbone.net.blocks.0.mlp.w1.weight, backbone.net.blocks.0.mlp.w1.bias, head.dec"
        in message
    )
    detector = copy.deepcopy(export.detector)
    first, second = detector.backbone.net.blocks[0].mlp.w1, detector.backbone.net.blocks[0].mlp.w2
    first.weight, second.weight = second.weight, first.weight  # both are there, by other names
    assert "have other values in 2 (backbone.net.blocks.0.mlp.w1.weight, " in refusal(
        export.folder, detector
    )


def test_many_are_counted_and_three_named(export: Export) -> None:
    message = refusal(export.folder, apart(make_detector(seed=1)))
    assert " and have other values in " in message and message.count(" more)") == 2


def test_a_weight_in_half_precision(exported: Callable[[str], Export]) -> None:
    export = exported("half")
    detector = copy.deepcopy(export.detector)
    with torch.no_grad():
        detector.backbone.net.blocks[1].mlp.w3.weight[0, 0] += 0.01
    assert "(backbone.net.blocks.1.mlp.w3.weight)" in refusal(export.folder, detector)


@pytest.mark.parametrize(
    "name", ["simfp_3.1.norm.running_mean", "simfp_4.0.norm.running_var", "simfp_4.1.weight"]
)
def test_a_weight_that_a_convolution_holds(name: str, exported: Callable[[str], Export]) -> None:
    export = exported("repdetr3d")
    changed = copy.deepcopy(export.detector)
    with torch.no_grad():
        changed.backbone.state_dict()[name].mul_(1.5).add_(0.1)
    assert f"backbone.{name}" in refusal(export.folder, changed)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_that_holds_its_norm(kind: type[nn.Module], bias: bool) -> None:
    detector = make_detector().eval()
    conv, norm = kind(4, 6, 3, bias=bias), nn.BatchNorm2d(6)
    detector.neck = apart(nn.Sequential(nn.Identity(), conv, norm, nn.ReLU())).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    entries = [e for e in folded_weights(detector, (32, 64)) if "neck" in str(e.names)]
    names = {name for name in detector.state_dict() if name.startswith("neck.")}
    assert {name for entry in entries for name in entry.names} == {
        name for name in names if not name.endswith("num_batches_tracked")
    }
    by_name = {name: torch.from_numpy(entry.value) for entry in entries for name in entry.names}
    joined = kind(4, 6, 3)
    joined.load_state_dict({"weight": by_name["neck.1.weight"], "bias": by_name["neck.2.bias"]})
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(joined(x), norm(conv(x)))
