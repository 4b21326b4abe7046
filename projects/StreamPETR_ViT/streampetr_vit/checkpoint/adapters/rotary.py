"""The rotary tables that foreign detectors store, and the settings that they tell.

Ours are computed (`modeling.backbone.rope`). Names are relative to the foreign backbone. The form
of the "rotary" settings is in `checkpoint.settings`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone.rope import rotary_tables


def settings_from_rotary_tables(tables: Mapping[str, Tensor]) -> dict[str, Any]:
    """The "rotary" settings of a foreign detector; empty if it does not have every table.

    Args:
        tables: each (T * T, head_dim) or (T, T, head_dim); other tensors are passed over.

    Raises:
        InputError: the shape or the values are not those of a rotary table.
    """
    sines: dict[str, Tensor] = {}
    for name, table in tables.items():
        if name.endswith(".freqs_sin"):
            if table.ndim < 2 or not table.numel():
                shape = tuple(table.shape)
                raise InputError(f"rotary table {name} has the shape {shape}: damaged?")
            # (T, T, head_dim) -> (T * T, head_dim)
            sines[name.removesuffix(".freqs_sin")] = table.flatten(0, -2)
    sides = {name: math.isqrt(len(table)) for name, table in sines.items()}
    blocks: list[int] = []
    while f"blocks.{len(blocks)}.attn.rope" in sides:
        blocks.append(sides[f"blocks.{len(blocks)}.attn.rope"])
    if not blocks or not {"rope_win", "rope_glb"} <= set(sides):
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
    """Side of the grid that the positions of a table (T * T, head_dim) are scaled to.

    Returns:
        None where the table does not tell: of one token, which stands at the origin of any grid,
        or of no grid up to 64 tokens (pictures of 1024 pixels; published ones are 14 to 32).
    """
    if not sines.abs().max() <= 1:
        raise InputError("the rotary tables of the file hold numbers that are no sines: damaged?")
    side, head_dim = math.isqrt(len(sines)), sines.shape[1]
    if side < 2 or side * side != len(sines) or head_dim % 4:
        return None
    once = sines[:, ::2].float()  # the reference stores each angle twice: (T * T, head_dim / 2)
    for grid in range(1, 65):
        if torch.allclose(once, rotary_tables(head_dim, side, grid)[1], atol=1e-2):
            return grid
    return None


def rotary_tables_of(settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tables that the reference stores; none where the settings do not tell their values.

    The reference does not need them (it computes its own); they make its files complete.
    """
    rotary = settings.get("rotary", {})
    if "pretrain" not in rotary:
        return {}
    sides = {"rope_win": rotary["window"], "rope_glb": rotary["global"]}
    sides |= {f"blocks.{i}.attn.rope": side for i, side in enumerate(rotary["blocks"])}
    # The reference stores each angle twice, once per channel of a pair. Blocks share their tables.
    tables = {
        (side, kind): half.repeat_interleave(2, dim=-1)
        for side in set(sides.values())
        for kind, half in zip(
            ("cos", "sin"), rotary_tables(rotary["head_dim"], side, rotary["pretrain"]), strict=True
        )
    }
    return {
        f"{name}.freqs_{kind}": tables[side, kind]
        for name, side in sides.items()
        for kind in ("cos", "sin")
    }
