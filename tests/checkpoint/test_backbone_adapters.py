"""Foreign backbone names and arguments in, ours out."""

from __future__ import annotations

import pytest
import torch

from streampetr_vit.checkpoint.adapters import (
    backbone_arguments_from_streampetr,
    backbone_from_eva_detection,
    backbone_from_streampetr,
    is_rotary_table,
)

ONE = torch.ones(1)


def test_names_lose_only_prefix_tables_and_heads() -> None:
    names = ("pos_embed", "blocks.3.attn.q_bias", "adapter.simfp_2.4.norm.weight")
    tables = ("blocks.3.attn.rope.freqs_cos", "rope_win.freqs_sin", "rope_glb.freqs_cos")
    theirs = dict.fromkeys([f"img_backbone.{name}" for name in (*names, *tables)], ONE)
    ours = {"net.pos_embed", "net.blocks.3.attn.q_bias", "simfp_2.4.norm.weight"}
    theirs["pts_bbox_head.reference_points.weight"] = ONE
    assert set(backbone_from_streampetr(theirs, "img_backbone.")) == ours
    eva = dict.fromkeys([f"backbone.{name}" for name in (*ours, "net.rope_glb.freqs_cos")], ONE)
    eva["roi_heads.box_head.0.fc1.weight"] = ONE
    assert set(backbone_from_eva_detection(eva)) == ours


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rope.freqs_cos", True),
        ("blocks.0.attn.rope.freqs_sin", True),
        ("rope_win.freqs_cos", True),
        ("blocks.0.attn.proj.weight", False),
        ("europe.weight", False),
    ],
)
def test_rotary_tables_are_recognised_by_whole_name_parts(name: str, expected: bool) -> None:
    assert is_rotary_table(name) is expected


def test_streampetr_arguments() -> None:
    vit, pyramid = backbone_arguments_from_streampetr(
        {
            "type": "EVAViT",
            "img_size": 320,
            "with_cp": True,
            "flash_attn": False,
            "frozen": False,
            "sim_fpn": {
                "in_channels": 1024,
                "out_channels": 256,
                "scale_factors": [4, 2, 1, 0.5, 0.25],
                "out_indices": [3, 4, 6],
            },
        }
    )
    assert vit == {"img_size": 320, "use_act_checkpoint": True, "xattn": False}
    assert pyramid == {
        "in_feature": "last_feat",
        "out_channels": 256,
        "scale_factors": [2, 1, 0.25],
        "norm": "LN",
        "half_scale": "conv",
    }


def test_the_seed_spelling_of_the_arguments_and_no_pyramid() -> None:
    config = {"type": "ViT", "use_act_checkpoint": True, "xattn": True, "sim_fpn": None}
    vit, pyramid = backbone_arguments_from_streampetr(config)
    assert vit == {"use_act_checkpoint": True, "xattn": True}
    assert pyramid is None
