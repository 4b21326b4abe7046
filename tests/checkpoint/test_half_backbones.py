"""Files with some of a ViT's tensors: nothing of it may pass for a loaded backbone."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import foreign_files as foreign
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from tiny_detector import make_detector
from torch import Tensor, nn

from streampetr_vit.checkpoint.conversion import convert
from streampetr_vit.checkpoint.loading import CheckpointError, SafeCheckpointer

OF_MAE = {"attn.qkv.weight": (96, 32), "attn.qkv.bias": (96,), "mlp.fc1.weight": (128, 32)}
WARNING = "26 of 41 tensors of the backbone were not in the file and keep their random start"


def mae_weights(depth: int = 2) -> dict[str, Tensor]:
    """A plain ViT under the names of detectron2's ViTDet: stem, norms and attn.proj are as ours."""
    ours = make_detector().state_dict()
    common = ("pos_embed", "patch_embed.", ".norm1.", ".norm2.", ".attn.proj.")
    weights = {
        name: torch.ones_like(value)
        for name, value in ours.items()
        if name.startswith("backbone.net.") and any(part in name for part in common)
    }
    for index in range(depth):
        for name, shape in OF_MAE.items():
            weights[f"backbone.net.blocks.{index}.{name}"] = torch.ones(shape)
    return weights


@pytest.fixture
def mae_file(tmp_path: Path) -> str:
    torch.save({"model": mae_weights()}, tmp_path / "mae.pth")
    return str(tmp_path / "mae.pth")


def is_equal(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in state.items())


def test_the_loader_refuses_half_a_backbone_and_names_its_kind_and_the_way_out(
    mae_file: str,
) -> None:
    model = make_detector()
    before = copy.deepcopy(model.state_dict())
    message = (
        r"lacks 26 of the 41 tensors of the model's ViT.*random start.*"
        r"plain ViT \(mlp.fc1\).*init_allow_partial=True"
    )
    with pytest.raises(CheckpointError, match=message):
        SafeCheckpointer(model).load(mae_file)
    assert is_equal(model.state_dict(), before)


def test_the_loader_takes_half_a_backbone_where_that_is_asked_for(mae_file: str, caplog) -> None:
    model = make_detector()
    with caplog.at_level(logging.WARNING):
        SafeCheckpointer(model, allow_partial=True).load(mae_file)
    state = model.state_dict()
    assert is_equal({n: v for n, v in mae_weights().items() if n in state}, state)
    assert "keep their start values: backbone.net (26)" in caplog.text
    assert WARNING not in caplog.text  # said once


def test_heads_without_a_backbone_are_a_warning(tmp_path: Path, caplog) -> None:
    state = make_detector().state_dict()
    heads = {name: value for name, value in state.items() if name.startswith("head.")}
    torch.save({"model": heads}, tmp_path / "head.pth")
    with caplog.at_level(logging.WARNING):
        SafeCheckpointer(make_detector()).load(str(tmp_path / "head.pth"))
    assert "keep their start values: backbone.net (41)" in caplog.text


@pytest.mark.parametrize("make", [make_detector, lambda: copy.deepcopy(make_detector())])
def test_detectron2s_checkpointer_warns_and_loads_as_torch_does(
    make, mae_file: str, caplog
) -> None:
    model = make()
    expected = {**copy.deepcopy(model.state_dict()), **mae_weights()}
    with caplog.at_level(logging.WARNING, logger="streampetr_vit"):
        DetectionCheckpointer(model).load(mae_file)
    assert is_equal(model.state_dict(), expected)
    assert WARNING in caplog.text and "SafeCheckpointer" in caplog.text
    caplog.clear()
    model.load_state_dict(model.state_dict())
    assert caplog.text == ""


def test_a_detector_inside_a_larger_module_warns_too(caplog) -> None:
    both = nn.ModuleDict({"ours": make_detector(), "other": nn.Linear(1, 1)})
    with caplog.at_level(logging.WARNING, logger="streampetr_vit"):
        both.load_state_dict({f"ours.{n}": v for n, v in mae_weights().items()}, strict=False)
    assert WARNING in caplog.text


def test_load_state_dict_behaves_as_torchs() -> None:
    """Another ViT brings buffers that the file lacks, and files hold what a model does not."""
    model = make_detector()
    model.backbone.net.register_buffer("freqs_cos", torch.zeros(2))
    state = {"backbone.net.pos_embed": torch.ones(1, 5, 32), "roi_heads.a.b": torch.ones(1)}
    expected = [name for name in model.state_dict() if name != "backbone.net.pos_embed"]
    result = model.load_state_dict(state, strict=False)
    assert result.missing_keys == expected and "backbone.net.freqs_cos" in expected
    assert result.unexpected_keys == ["roi_heads.a.b"]
    assert model.backbone.net.pos_embed.eq(1).all()
    message = r"(?s)Missing key.*freqs_cos.*Unexpected key.*roi_heads.a.b"
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(state)
    assert model.load_state_dict({}, strict=False).unexpected_keys == []


def names_without(shapes: foreign.Shapes, *parts: str) -> dict[str, Tensor]:
    kept = {n: s for n, s in shapes.items() if not any(part in n for part in parts)}
    return foreign.filled(kept)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("mlp.w1",), r"6 of the 60 tensors .* backbone.net.blocks.0.mlp.w1.bias"),
        (("blocks.1.mlp.w3.bias",), r"1 of the 60 .*: backbone.net.blocks.1.mlp.w3.bias\."),
        (("blocks.1.attn.q_bias",), r"1 of the 60 .*: backbone.net.blocks.1.attn.q_bias\."),
        (("blocks.1.",), "19 of the 60"),
        (("pos_embed",), r": backbone.net.pos_embed\."),
        (("patch_embed.proj.bias",), r": backbone.net.patch_embed.proj.bias\."),
        (("blocks.",), "half a backbone: it lacks 17 of the 20"),
    ],
)
@pytest.mark.parametrize("source", ["eva02-det", "eva02-cls", "seed-remapped"])
def test_half_a_backbone_is_not_converted(
    source: str, parts: tuple[str, ...], message: str
) -> None:
    shapes = {
        "eva02-det": foreign.eva_detection(foreign.TINY),
        "eva02-cls": foreign.vit_shapes(foreign.TINY),
        "seed-remapped": foreign.remapped(foreign.TINY),
    }[source]
    convert(foreign.filled(shapes), source)  # whole, it converts
    with pytest.raises(CheckpointError, match=message):
        convert(names_without(shapes, *parts), source)


def test_what_no_block_has_is_an_option_of_the_vit() -> None:
    shapes = foreign.vit_shapes(foreign.TINY)
    plain = convert(names_without(shapes, "q_bias", "v_bias"))
    assert len(plain.tensors) == len(shapes) - 2 * 3


def test_plain_vits_are_not_converted() -> None:
    with pytest.raises(CheckpointError, match=r"blocks of a plain ViT \(mlp.fc1\), as MAE's"):
        convert(mae_weights())
    with pytest.raises(CheckpointError, match="half a backbone"):
        convert(mae_weights(), "eva02-det")
    one = {"backbone.net.blocks.999999999.attn.proj.bias": torch.ones(1)}
    with pytest.raises(CheckpointError, match="half a backbone"):
        convert(one, "eva02-det")
