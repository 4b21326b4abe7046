"""What a checkpoint's weights were trained for, beside their shapes.

Two detectors whose tensors have the same names and shapes may still differ in the size of the
windows, which follows the size of the pictures, and in the ranges that normalise points. Weights of
one then load into the other without complaint and detect badly. Checkpoints record these settings
as plain values:

    point_cloud_range, position_range   metres, of the head
    code_weights, match_costs           of the losses; the reference keeps them among its weights
    rotary                              head_dim; pretrain, the side in tokens of the grid that
                                        positions are scaled to, where it is known; and the side of
                                        the rotary tables: window, global, of each block in blocks
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone.rope import DEFAULT_BASE, rotary_tables
from streampetr_vit.modeling.backbone.window_attention import WindowAttention

logger = logging.getLogger(__name__)

Settings = dict[str, Any]

# Of our model, where the settings stand and how a configuration names them.
_RANGES = {
    "point_cloud_range": "head.point_cloud_range",
    "position_range": "head.position_encoder.position_range",
}
_LOSSES = {
    "code_weights": "criterion.detection.code_weights",
    "match_costs": "criterion.detection.matcher.code_weights",
}


def settings_of(model: nn.Module) -> Settings:
    """The settings of a detector, as far as it has them; an empty dict for other models."""
    settings: Settings = {}
    for name, path in {**_RANGES, **_LOSSES}.items():
        value = _attribute(model, path)
        if value is not None:
            settings[name] = value.tolist() if isinstance(value, Tensor) else list(value)
    ropes = [m.rope for m in model.modules() if isinstance(m, WindowAttention)]
    present = [rope for rope in ropes if rope is not None]
    if present and len(present) == len(ropes):
        sides = [rope.size for rope in present]
        settings["rotary"] = {
            "head_dim": present[0].head_dim,
            "pretrain": present[0].pretrain_size,
            "window": min(sides),
            "global": max(sides),
            "blocks": sides,
        }
    return settings


def parse_settings(recorded: object, path: str) -> Settings:
    """The settings among what a file records as such.

    Args:
        recorded: anything. Other projects may use the name for something else: what is no mapping
            is passed over, and so are names that are not of this module.
        path: the file, for messages.

    Returns:
        Entries of the documented form; others are left out with a warning.
    """
    if not isinstance(recorded, Mapping):
        return {}
    allowed = {
        **{name: lambda value: _are_numbers(value, 6) for name in _RANGES},
        **{name: _are_numbers for name in _LOSSES},
        "rotary": _is_rotary,
    }
    found = {name: recorded[name] for name in allowed if name in recorded}
    for name in [name for name, value in found.items() if not allowed[name](value)]:
        value = f"{found.pop(name)!r:.80}"
        logger.warning("%s: its setting %s=%s is malformed and not compared", path, name, value)
    return found


def _are_numbers(value: object, count: int | None = None) -> bool:
    return (
        isinstance(value, list)
        and len(value) == (count or len(value))
        and all(isinstance(number, int | float) and math.isfinite(number) for number in value)
    )


def _is_rotary(value: object) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("blocks"), list):
        return False
    sizes = [value.get(name) for name in ("head_dim", "window", "global")]
    sizes += [*value["blocks"], value.get("pretrain", 1)]
    return all(isinstance(size, int) and size > 0 for size in sizes)


def settings_from_rotary_tables(tables: Mapping[str, Tensor]) -> Settings:
    """The "rotary" settings that a foreign detector's stored tables tell.

    Args:
        tables: names relative to the backbone; each (T * T, head_dim) or (T, T, head_dim).

    Raises:
        ValueError: the shape or the values are not those of a rotary table.
    """
    sines: dict[str, Tensor] = {}
    for name, table in tables.items():
        if name.endswith(".freqs_sin"):
            if table.ndim < 2 or not table.numel():
                raise InputError(
                    f"rotary table {name} has the shape {tuple(table.shape)}: damaged?"
                )
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
    """Side of the grid that the positions of a table are scaled to.

    Args:
        sines: (T * T, head_dim).

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


def rotary_tables_of(settings: Settings) -> dict[str, Tensor]:
    """The tables that the reference stores, named relative to its backbone.

    The reference does not need them (it computes its own); they make its files complete. There are
    none where the settings do not tell their values.
    """
    rotary = settings.get("rotary", {})
    if "pretrain" not in rotary:
        return {}
    sides = {"rope_win": rotary["window"], "rope_glb": rotary["global"]}
    sides |= {f"blocks.{i}.attn.rope": side for i, side in enumerate(rotary["blocks"])}
    computed: dict[int, tuple[Tensor, Tensor]] = {}
    for side in sides.values():
        if side not in computed:
            cos, sin = rotary_tables(rotary["head_dim"], side, rotary["pretrain"])
            # The reference stores each angle twice, once per channel of a pair.
            computed[side] = (cos.repeat_interleave(2, dim=-1), sin.repeat_interleave(2, dim=-1))
    return {
        f"{name}.freqs_{kind}": table
        for name, side in sides.items()
        for kind, table in zip(("cos", "sin"), computed[side], strict=True)
    }


def differences(file: Settings, model: Settings, *, training: bool = False) -> list[str]:
    """What differs between a checkpoint's settings and a model's; one line each, with the fix.

    Args:
        file: of a checkpoint; settings that it does not have are not compared.
        model: of `settings_of`.
        training: also compare what only the losses read.
    """
    paths = {**_RANGES, **(_LOSSES if training else {})}
    lines = [
        f"{name} is {_short(file[name])} in the file, {_short(model[name])} in the model: set "
        f"model.{path}={_short(file[name])}"
        for name, path in paths.items()
        if name in file and name in model and not _is_close(file[name], model[name])
    ]
    ours, theirs = model.get("rotary", {}), file.get("rotary", {})
    if ours and theirs.get("pretrain", ours["pretrain"]) != ours["pretrain"]:
        lines.append(
            f"rotary positions span {theirs['pretrain']} tokens in the file, {ours['pretrain']} in "
            f"the model: set model.backbone.net.pt_hw_seq_len={theirs['pretrain']}"
        )
    sides = list(zip(theirs.get("blocks", ()), ours.get("blocks", ()), strict=False))
    for index, (of_file, of_model) in enumerate(sides):
        if of_file != of_model:
            lines.append(
                f"block {index} has windows of {of_file} tokens in the file, {of_model} in the "
                "model: it was trained for another picture size, use the recipe of that size "
                "(model.backbone.net.img_size, window_size, global_window_size)"
            )
            break
    return lines


def _attribute(model: Any, path: str) -> Any:
    for part in path.split("."):
        model = getattr(model, part, None)
    return model


def _is_close(one: list[float], other: list[float]) -> bool:
    pair = (torch.tensor(one), torch.tensor(other))
    return pair[0].shape == pair[1].shape and torch.allclose(*pair)


def _short(values: list[float]) -> str:
    return f"[{','.join(f'{value:.6g}' for value in values)}]"
