"""EVA-02 ViT against StreamPETR's EVAViT: every option, plain and fast form, checkpointing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import pytest
from backbone_cases import check_run

from streampetr_vit.checkpoint.adapters import (
    backbone_arguments_from_streampetr,
    backbone_from_streampetr,
)
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid, SingleScale, ViT

FILES = golden.files_of("evavit")


def build(case: dict[str, Any], **changes: Any) -> SingleScale | SimpleFeaturePyramid:
    """The backbone of a golden file with its weights, every one of them used."""
    vit_arguments, pyramid_arguments = backbone_arguments_from_streampetr(case["config"])
    vit = ViT(**{**vit_arguments, **changes})
    backbone = (
        SimpleFeaturePyramid(net=vit, **pyramid_arguments)
        if pyramid_arguments
        else SingleScale(vit)
    )
    backbone.load_state_dict(backbone_from_streampetr(case["state_dict"]), strict=True)
    return backbone


# Golden windows of 4 and 4 tokens coincide: the warning is tested with the ViT.
@pytest.mark.filterwarnings("ignore:global_window_size")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_evavit_agrees_with_the_reference(path: Path, fast: bool) -> None:
    case = golden.load(path)
    backbone = build(case, xattn=fast).eval()
    check_run(backbone, case, backbone_from_streampetr(case["grads"]["params"]))


@pytest.mark.filterwarnings("ignore:global_window_size")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("policy", [True, "selective"], ids=["per block", "selective"])
def test_activation_checkpointing_changes_nothing(
    path: Path, fast: bool, policy: bool | str
) -> None:
    case = golden.load(path)
    backbone = build(case, xattn=fast, use_act_checkpoint=policy, drop_path_rate=0.0).train()
    check_run(backbone, case, backbone_from_streampetr(case["grads"]["params"]))
