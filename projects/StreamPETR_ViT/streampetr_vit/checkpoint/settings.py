"""What a checkpoint's weights were trained for, beside their shapes.

Detectors with tensors of the same names and shapes may differ in the size of their windows, in the
ranges that normalise points, and in the class that each channel stands for. Weights of one then
load into the other without complaint and detect badly. Checkpoints record these settings as plain
values, see `settings_of`. Inference on another car needs two more: the frame that boxes live in,
and the time between frames.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from operator import attrgetter
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from streampetr_vit.modeling.backbone.window_attention import WindowAttention
from streampetr_vit.texts import name_list

logger = logging.getLogger(__name__)

Settings = dict[str, Any]

# Where they stand in our model, and in a configuration below "model.".
_PATHS = {
    "point_cloud_range": "head.point_cloud_range",  # metres
    "position_range": "head.position_encoder.position_range",  # metres
    "code_weights": "criterion.detection.code_weights",
    "match_costs": "criterion.detection.matcher.code_weights",
}
# What is noted on the model, which has no use for it: the class of each channel; and of the
# training set the frame that boxes and memory live in, and the rate that the memory has learned.
CLASS_NAMES = "class_names"
REFERENCE_TO_VEHICLE = "reference_to_vehicle"  # its pose, as (x, y, z, qw, qx, qy, qz)
FRAME_PERIOD = "frame_period_s"
# Another car or another rate is no other detector: these are not compared.
OF_THE_TRAINING_SET = (REFERENCE_TO_VEHICLE, FRAME_PERIOD)
_NOTED = (CLASS_NAMES, *OF_THE_TRAINING_SET)
# Only training reads these: a checkpoint for other ones is no other detector.
LOSSES = ("code_weights", "match_costs")


def settings_of(model: nn.Module) -> Settings:
    """The settings of a detector, as far as it has them; an empty dict for other models."""
    settings: Settings = {}
    for name, path in _PATHS.items():
        with suppress(AttributeError):  # of a backbone alone, or a detector without losses
            value = attrgetter(path)(model)
            settings[name] = value.tolist() if isinstance(value, Tensor) else list(value)
    for name in _NOTED:
        value = getattr(model, name, None)
        if value is not None:
            settings[name] = value if name == FRAME_PERIOD else list(value)
    ropes = [module.rope for module in model.modules() if isinstance(module, WindowAttention)]
    # A ViT without rotary positions, or with some, tells nothing.
    if ropes and None not in ropes:
        sides = [rope.size for rope in ropes]  # of windows, in tokens
        settings["rotary"] = {
            "head_dim": ropes[0].head_dim,
            "pretrain": ropes[0].pretrain_size,  # side of the grid that positions are scaled to
            "window": min(sides),
            "global": max(sides),
            "blocks": sides,
        }
    return settings


def parse_settings(recorded: object, path: str) -> Settings:
    """The settings among what a file records; malformed ones are left out with a warning."""
    # Other projects may use the entry for something else.
    if not isinstance(recorded, Mapping):
        return {}
    found = {name: recorded[name] for name in (*_PATHS, *_NOTED, "rotary") if name in recorded}
    for name in [name for name, value in found.items() if not _is_valid(name, value)]:
        value = found.pop(name)
        logger.warning("%s: its setting %s=%.80r is malformed and left out", path, name, value)
    return found


def _is_valid(name: str, value: object) -> bool:
    if name == "rotary":
        return _is_rotary(value)
    if name == CLASS_NAMES:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if name == FRAME_PERIOD:
        return _is_number(value) and value > 0
    if not isinstance(value, list) or not all(map(_is_number, value)):
        return False
    if name == REFERENCE_TO_VEHICLE:
        return len(value) == 7 and abs(math.hypot(*value[3:]) - 1) < 1e-3
    return len(value) == 6 or not name.endswith("_range")


def _is_number(value: object) -> TypeGuard[float]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_rotary(value: object) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("blocks"), list):
        return False
    sizes = [value.get(name) for name in ("head_dim", "window", "global")]
    sizes += [*value["blocks"], value.get("pretrain", 1)]
    return all(isinstance(size, int) and size > 0 for size in sizes)


def take_over(recorded: Settings, model: nn.Module) -> None:
    """Notes on a model what a file says of its training set, where nothing is noted yet."""
    for name in OF_THE_TRAINING_SET:
        if name in recorded and getattr(model, name, None) is None:
            setattr(model, name, recorded[name])


def differences(file: Settings, model: Settings) -> dict[str, str]:
    """What differs between a checkpoint's settings and a model's, where both have them.

    Returns:
        The setting, or "grid" or "windows" of the rotary ones -> a line about it, with the fix.
    """
    lines = {
        name: f"{name} is {_short(file[name])} in the file, {_short(model[name])} in the model: "
        f"set model.{path}={_short(file[name])}"
        for name, path in _PATHS.items()
        if name in file and name in model and not _is_close(file[name], model[name])
    }
    names = [settings[CLASS_NAMES] for settings in (file, model) if CLASS_NAMES in settings]
    if len(names) == 2 and names[0] != names[1]:
        lines[CLASS_NAMES] = (
            f"its class channels are {name_list(file[CLASS_NAMES])}, those of dataset_spec.classes "
            f"{name_list(model[CLASS_NAMES])}: give dataset_spec.classes the names and the order "
            "of the file"
        )
    theirs, ours = file.get("rotary", {}), model.get("rotary", {})
    if ours and theirs.get("pretrain", ours["pretrain"]) != ours["pretrain"]:
        lines["grid"] = (
            f"rotary positions span {theirs['pretrain']} tokens in the file, {ours['pretrain']} in "
            f"the model: set model.backbone.net.pt_hw_seq_len={theirs['pretrain']}"
        )
    sides = zip(theirs.get("blocks", ()), ours.get("blocks", ()), strict=False)
    other = [(index, *pair) for index, pair in enumerate(sides) if pair[0] != pair[1]]
    for index, of_file, of_model in other[:1]:  # the others follow from the same options
        lines["windows"] = (
            f"block {index} has windows of {of_file} tokens in the file, {of_model} in the model: "
            "it was trained for another picture size, use the recipe of that size "
            "(model.backbone.net.img_size, window_size, global_window_size)"
        )
    return lines


def _is_close(one: list[float], other: list[float]) -> bool:
    pair = (torch.tensor(one), torch.tensor(other))
    return pair[0].shape == pair[1].shape and torch.allclose(*pair)


def _short(values: list[float]) -> str:
    return f"[{','.join(f'{value:.6g}' for value in values)}]"
