"""GridMask: the mask that the reference's draws give, and the images it leaves."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest
import torch

from streampetr_vit.modeling.image.grid_mask import GridDraw, GridMask

# Settings of the reference that its models never change, and that ours does not have.
FIXED = {"use_h": True, "use_w": True, "rotate": 1, "offset": False}


@pytest.mark.parametrize("path", golden.files_of("gridmask"), ids=lambda path: path.stem)
def test_masks(path: Path) -> None:
    data = golden.load(path)
    cases = zip(data["config"]["cases"], data["inputs"], data["outputs"], strict=True)
    for number, (config, inputs, expected) in enumerate(cases):
        assert config.items() >= FIXED.items(), f"case {number} has settings that we know not of"
        grid_mask = GridMask(config["prob"], config["ratio"], keep_stripes=config["mode"] == 1)
        chance, *places = [draw["value"][0] for draw in inputs["draws"]]
        size = inputs["x"].shape[-2:]
        mask = torch.ones(size)
        if config["training"] and chance <= grid_mask.probability:
            *numbers, rotation = map(int, places)
            assert rotation == 0
            mask = grid_mask.mask(tuple(size), GridDraw(*numbers))
        assert torch.equal(mask, expected["mask"].float()), f"mask of case {number}"
        assert torch.equal(inputs["x"].float() * mask, expected["y"].float()), f"case {number}"
