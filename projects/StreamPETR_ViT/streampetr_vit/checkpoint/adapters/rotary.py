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
from streampetr_vit.modeling.backbone.rope import DEFAULT_BASE, rotary_tables


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
        None where the table does not tell: of one token, or so narrow that its slowest channel
        turns by more than a quarter.
    """
    side, half = math.isqrt(len(sines)), sines.shape[1] // 2
    if side < 2 or half < 2:
        return None
    # The last channel turns slowest: a fraction of a turn over the whole grid, so its angle is
    # known. The token at the end of the first row stands (side - 1) / side of the grid from it.
    slowest = DEFAULT_BASE ** -((half - 2) / half)
    sine = float(sines[side - 1, -1])
    if not abs(sine) <= 1:
        raise InputError(f"the rotary tables of the file hold {sine}, which is no sine: damaged?")
    grid = round(math.asin(sine) / slowest * side / (side - 1))
    expected = torch.sin(torch.arange(side) * slowest * grid / side)
    return grid if torch.allclose(sines[:side, -1].float(), expected, atol=1e-2) else None


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
