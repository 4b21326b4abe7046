"""The rotary tables that foreign detectors store, and the settings that they tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone.rope import rotary_tables

_DAMAGED = "the file is damaged; copy or download it again"


def settings_from_rotary_tables(
    state_dict: Mapping[str, Tensor], prefix: str = ""
) -> dict[str, Any]:
    """The "rotary" settings of a foreign backbone; empty if it does not have every table.

    Raises:
        InputError: the shape or the values are not those of a rotary table.
    """
    sines: dict[str, Tensor] = {}
    for name, table in state_dict.items():
        if name.startswith(prefix) and name.endswith(".freqs_sin"):
            if table.ndim < 2 or not table.numel():
                shape = tuple(table.shape)
                raise InputError(f"rotary table {name} has the shape {shape}: {_DAMAGED}")
            if not table.float().abs().max() <= 1:
                raise InputError(f"rotary table {name} holds numbers that are no sines: {_DAMAGED}")
            # (T, T, head_dim) or (T * T, head_dim) -> (T * T, head_dim)
            sines[name.removeprefix(prefix).removesuffix(".freqs_sin")] = table.flatten(0, -2)
    sides = {name: math.isqrt(len(table)) for name, table in sines.items()}
    blocks: list[int] = []
    while (name := f"blocks.{len(blocks)}.attn.rope") in sides:
        blocks.append(sides[name])
    if not blocks or not {"rope_win", "rope_glb"} <= sides.keys():
        return {}
    grid = _pre_training_grid(sines["rope_win"])
    return {
        "rotary": {
            "head_dim": sines["rope_win"].shape[-1],
            **({} if grid is None else {"pretrain": grid}),
            "window": sides["rope_win"],
            "global": sides["rope_glb"],
            "blocks": blocks,
        }
    }


def _pre_training_grid(sines: Tensor) -> int | None:
    """Side of the grid that a table (T * T, head_dim) is scaled to; None if it does not tell."""
    side, head_dim = math.isqrt(len(sines)), sines.shape[1]
    # One token stands at the origin of any grid.
    if side < 2 or side * side != len(sines) or head_dim % 4:
        return None
    once = sines[:, ::2].float()  # the reference stores each angle twice: (T * T, head_dim / 2)
    for grid in range(1, 65):  # published ones are 14 to 32; 64 are pictures of 1024 pixels
        if torch.allclose(once, rotary_tables(head_dim, side, grid)[1], atol=1e-2):
            return grid
    return None


def rotary_tables_of(settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tables of the reference's backbone; none where the settings do not tell their values."""
    # The reference computes its own; these make its files complete.
    rotary = settings.get("rotary", {})
    if "pretrain" not in rotary:
        return {}
    sides = {"rope_win": rotary["window"], "rope_glb": rotary["global"]}
    sides |= {f"blocks.{i}.attn.rope": side for i, side in enumerate(rotary["blocks"])}
    # By side: blocks share their tables.
    tables: dict[int, dict[str, Tensor]] = {}
    for side in set(sides.values()):
        once = rotary_tables(rotary["head_dim"], side, rotary["pretrain"])
        # Each angle twice, once per channel of a pair: (T * T, head_dim / 2) -> (T * T, head_dim)
        cos, sin = (table.repeat_interleave(2, dim=-1) for table in once)
        tables[side] = {"cos": cos, "sin": sin}
    return {
        f"{name}.freqs_{kind}": table
        for name, side in sides.items()
        for kind, table in tables[side].items()
    }
