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
from torch import Tensor

from streampetr_vit.checkpoint.conversion import convert
from streampetr_vit.checkpoint.key_report import partial_loading
from streampetr_vit.checkpoint.loading import CheckpointError, SafeCheckpointer

CHECKPOINTERS = [DetectionCheckpointer, SafeCheckpointer]
OF_MAE = {"attn.qkv.weight": (96, 32), "attn.qkv.bias": (96,), "mlp.fc1.weight": (128, 32)}


def mae_file(path: Path, depth: int = 2) -> dict[str, Tensor]:
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
    torch.save({"model": weights}, path)
    return weights


@pytest.mark.parametrize("checkpointer", CHECKPOINTERS)
def test_half_a_backbone_is_an_error(checkpointer: type, tmp_path: Path) -> None:
    mae_file(tmp_path / "mae.pth")
    model = make_detector()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=r"of the 41 tensors .* has 15; .*random start"):
        checkpointer(model).load(str(tmp_path / "mae.pth"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_trainings_checkpointer_names_the_kind_and_the_way_out(tmp_path: Path) -> None:
    mae_file(tmp_path / "mae.pth")
    with pytest.raises(CheckpointError, match=r"plain ViT \(mlp.fc1\).*init_allow_partial=True"):
        SafeCheckpointer(make_detector()).load(str(tmp_path / "mae.pth"))


def test_half_a_backbone_loads_where_that_is_asked_for(tmp_path: Path, caplog) -> None:
    weights = mae_file(tmp_path / "mae.pth")
    for name in CHECKPOINTERS:
        model = make_detector()
        with caplog.at_level(logging.WARNING):
            if name is SafeCheckpointer:
                name(model, allow_partial=True).load(str(tmp_path / "mae.pth"))
            else:
                with partial_loading(model):
                    name(model).load(str(tmp_path / "mae.pth"))
        state = model.state_dict()
        assert all(torch.equal(state[n], v) for n, v in weights.items() if n in state)
        assert "keep their start values: backbone.net (26)" in caplog.text
        caplog.clear()
        with pytest.raises(CheckpointError, match="half a backbone"):
            model.load_state_dict(weights, strict=False)  # asked for once, not for ever


@pytest.mark.parametrize("checkpointer", CHECKPOINTERS)
def test_heads_without_a_backbone_are_a_warning(checkpointer: type, tmp_path: Path, caplog) -> None:
    model = make_detector()
    state = {k: v for k, v in model.state_dict().items() if k.startswith("head.")}
    torch.save({"model": state}, tmp_path / "head.pth")
    with caplog.at_level(logging.WARNING):
        checkpointer(model).load(str(tmp_path / "head.pth"))
    assert "keep their start values: backbone.net (41)" in caplog.text


def names_without(shapes: foreign.Shapes, *parts: str) -> dict[str, Tensor]:
    kept = {n: s for n, s in shapes.items() if not any(part in n for part in parts)}
    return foreign.filled(kept)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("mlp.w1",), r"6 of 60 tensors .* blocks.0.mlp.w1.bias"),
        (("blocks.1.mlp.w3.bias",), r"1 of 60 .*: blocks.1.mlp.w3.bias\."),
        (("blocks.1.attn.q_bias",), r"1 of 60 .*: blocks.1.attn.q_bias\."),
        (("blocks.1.",), "19 of 60"),
        (("pos_embed",), r": pos_embed\."),
        (("patch_embed.proj.bias",), r": patch_embed.proj.bias\."),
        (("blocks.",), "no whole EVA-02 backbone: 17 of 20"),
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


def test_plain_vits_are_not_converted(tmp_path: Path) -> None:
    weights = mae_file(tmp_path / "mae.pth")
    with pytest.raises(CheckpointError, match=r"blocks of a plain ViT \(mlp.fc1\), as MAE's"):
        convert(weights)
    with pytest.raises(CheckpointError, match="no whole EVA-02 backbone"):
        convert(weights, "eva02-det")
    one = {"backbone.net.blocks.999999999.attn.proj.bias": torch.ones(1)}
    with pytest.raises(CheckpointError, match="names a block 999999999"):
        convert(one, "eva02-det")
