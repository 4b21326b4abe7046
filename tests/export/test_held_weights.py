"""The graphs hold every weight of the detector, and it shows if they do not."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exported import export_tiny
from onnx import ModelProto, numpy_helper
from tiny_detector import make_detector, make_repdetr3d
from torch import nn

from streampetr_vit.errors import CheckpointError
from streampetr_vit.export.folded_weights import folded_weights
from streampetr_vit.export.held_weights import check_held
from streampetr_vit.export.interface import BACKBONE, HEAD, POSITION
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid
from streampetr_vit.modeling.detector import StreamPETR


def tiny() -> StreamPETR:
    """No two of its weights are equal."""
    return apart(make_detector().eval())


def apart(detector: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return detector


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of `tiny`, read only."""
    folder = tmp_path_factory.mktemp("export")
    export_tiny(tiny(), folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "export")


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


def test_a_whole_export_passes(exported: Path) -> None:
    detector = tiny()
    before = copy.deepcopy(detector.state_dict())
    check_held(exported, detector)
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())


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
def test_a_constant_that_is_gone_or_altered(folder: Path, graph: str, name: str) -> None:
    detector = tiny()
    value = detector.state_dict()[name].numpy()
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
    assert f"the exported graphs {word} ({name}) of the detector's" in refusal(folder, detector)
    change(folder, graph, remove)
    assert f"the exported graphs miss 1 ({name}) of the detector's" in refusal(folder, detector)


@pytest.mark.parametrize("name", ["backbone.net.pos_embed", "head.start_points"])
def test_what_the_exporter_computes_from_a_weight(exported: Path, name: str) -> None:
    detector = tiny()
    with torch.no_grad():
        detector.state_dict()[name][..., -1, :] *= 1.001
    assert f"miss 1 ({name})" in refusal(exported, detector)


def test_a_layer_in_anothers_place(exported: Path) -> None:
    detector = tiny()
    detector.head.decoder.layers[0].feedforward[0] = nn.Linear(32, 32)
    detector.backbone.net.blocks[0].mlp.w1 = nn.Linear(32, 85)
    message = refusal(exported, detector)
    assert (
        "miss 1 (head.decoder.layers.0.feedforward.0.weight) and have other values in 3" in message
    )
    assert (
        "(backbone.net.blocks.0.mlp.w1.weight, backbone.net.blocks.0.mlp.w1.bias, head.dec"
        in message
    )
    detector = tiny()
    first, second = detector.backbone.net.blocks[0].mlp.w1, detector.backbone.net.blocks[0].mlp.w2
    first.weight, second.weight = second.weight, first.weight  # both are there, by other names
    assert "have other values in 2 (backbone.net.blocks.0.mlp.w1.weight, " in refusal(
        exported, detector
    )


def test_many_are_counted_and_three_named(exported: Path) -> None:
    message = refusal(exported, apart(make_detector(seed=1).eval()))
    assert " and have other values in " in message and message.count(" more)") == 2


def test_weights_that_are_equal_or_in_half_precision(tmp_path: Path) -> None:
    detector = make_detector().eval()  # its norms are all ones: the exporter keeps one of them
    export_tiny(detector, tmp_path, precision="fp16-backbone")
    check_held(tmp_path, detector)
    with torch.no_grad():
        detector.backbone.net.blocks[1].mlp.w3.weight[0, 0] += 0.01
    assert "(backbone.net.blocks.1.mlp.w3.weight)" in refusal(tmp_path, detector)


def test_a_pyramid_with_batch_norms_and_a_level_that_no_head_reads(tmp_path: Path) -> None:
    detector = make_repdetr3d()
    vit = detector.backbone.net
    torch.manual_seed(0)
    detector.backbone = SimpleFeaturePyramid(vit, "last_feat", 32, [2, 1, 0.5], norm="BN")
    detector = apart(detector.eval())
    export_tiny(detector, tmp_path)
    before = copy.deepcopy(detector.state_dict())
    check_held(tmp_path, detector)  # p5 is not among in_feature
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())
    for name in ("simfp_3.1.norm.running_mean", "simfp_4.0.norm.running_var", "simfp_4.1.weight"):
        changed = copy.deepcopy(detector)
        with torch.no_grad():
            changed.backbone.state_dict()[name].mul_(1.5).add_(0.1)
        assert f"backbone.{name}" in refusal(tmp_path, changed)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_that_holds_its_norm(kind: type[nn.Module], bias: bool) -> None:
    detector = tiny()
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
