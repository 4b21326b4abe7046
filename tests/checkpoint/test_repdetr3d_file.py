"""A RepDETR3D file of full size, made by its documented names and shapes, fits the recipe."""

from __future__ import annotations

from pathlib import Path

import foreign_files as foreign
import torch
from detectron2.config import instantiate

from streampetr_vit.checkpoint.conversion import convert
from streampetr_vit.engine import load_config

RECIPE = Path(__file__).resolve().parents[2] / "configs" / "repdetr3d_eva02_l_800x320_24ep.py"


def test_a_file_of_full_size_fits_the_recipe_exactly() -> None:
    cfg = load_config(str(RECIPE))
    with torch.device("meta"):
        model = instantiate(cfg.model)
    model.head = instantiate(cfg.model.head)  # its ranges are compared
    tensors = foreign.as_detector(foreign.filled(foreign.repdetr3d()))
    conversion = convert(tensors, model=model)
    assert conversion.source == "repdetr3d" and len(tensors) == 956
    assert conversion.fit is not None
    assert not (conversion.fit.missing or conversion.fit.unused or conversion.fit.wrong_shape)
    # 956 less 52 rotary tables, 3 settings and the copies of the shared branches
    assert len(conversion.fit.matched) == 956 - 52 - 3 - 5 * (10 + 6)
