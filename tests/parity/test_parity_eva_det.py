"""ViT and simple feature pyramid against EVA-02's detection fork of detectron2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import pytest
from backbone_cases import ATOL, check_run
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from streampetr_vit.checkpoint.adapters import backbone_from_eva_detection
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid, ViT

FILES = golden.files_of("eva_det")
TOP_BLOCKS = {"LastLevelMaxPool": LastLevelMaxPool, None: lambda: None}


def build(case: dict[str, Any], **changes: Any) -> SimpleFeaturePyramid:
    """The pyramid of a golden file with its weights, every one of them used."""
    config = case["config"]
    vit = ViT(**{**config["vit"], **changes})
    backbone = SimpleFeaturePyramid(
        net=vit,
        in_feature="last_feat",
        top_block=TOP_BLOCKS[config["top_block"]](),
        half_scale="max_pool",
        **config["simfp"],
    )
    weights = backbone_from_eva_detection(case["state_dict"], prefix="")
    backbone.load_state_dict(weights, strict=True)
    return backbone


@pytest.mark.parametrize("checkpointed", [False, True], ids=["eval", "train-checkpointed"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_eva_detection_backbone_agrees_with_the_reference(
    path: Path, checkpointed: bool, fast: bool
) -> None:
    case = golden.load(path)
    backbone = build(case, xattn=fast, use_act_checkpoint=checkpointed, drop_path_rate=0.0)
    backbone.train(checkpointed)
    expected_gradients = backbone_from_eva_detection(case["grads"]["params"], prefix="")
    check_run(backbone, case, expected_gradients)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_eva_detection_map_and_shapes(path: Path) -> None:
    case = golden.load(path)
    backbone = build(case).eval()
    expected = case["outputs"]
    last_map = backbone.net(case["inputs"]["img"])["last_feat"]
    golden.assert_close(last_map, expected["last_feat"], "last_feat", atol=ATOL)
    shapes = backbone.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == expected["strides"]
    assert {name: shape.channels for name, shape in shapes.items()} == expected["channels"]
    assert backbone.size_divisibility == expected["size_divisibility"]
    assert backbone.padding_constraints["square_size"] == case["config"]["simfp"]["square_pad"]
