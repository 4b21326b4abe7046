"""Whole detectors and 3D heads of StreamPETR and RepDETR3D, in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters.known_files import tensors_by_our_names
from streampetr_vit.checkpoint.adapters.renaming import under
from streampetr_vit.checkpoint.adapters.rotary import rotary_tables_of, settings_from_rotary_tables
from streampetr_vit.checkpoint.adapters.tables import HEAD, HEAD_CONSTANTS, PARTS
from streampetr_vit.errors import InputError

# How often the reference lists the shared branches, whatever the number of decoder layers.
_BRANCH_COPIES = 6


def detector_from_streampetr(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights of a whole detector for ours, and the settings that the reference has among them.

    Raises:
        InputError: names that no part has, a head as in `head_from_streampetr`, damaged tables.
    """
    strange = [name for name in state_dict if not name.startswith(tuple(PARTS))]
    if strange:
        raise InputError(
            f"tensor {strange[0]!r} belongs to no part of StreamPETR ({', '.join(PARTS)})"
        )
    tensors, _ = tensors_by_our_names(state_dict, "streampetr")
    head, constants = head_from_streampetr(state_dict, "pts_bbox_head.")  # compares the copies
    tensors |= {f"head.{name}": value for name, value in head.items()}
    settings = {HEAD_CONSTANTS[name]: value.tolist() for name, value in constants.items()}
    return tensors, settings | settings_from_rotary_tables(state_dict, "img_backbone.")


def detector_to_streampetr(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Inverse of `detector_from_streampetr`; an InputError for names not of our detector."""
    parts = [part for part, _ in PARTS.values()]
    strange = [name for name in tensors if name.split(".")[0] not in parts]
    if strange:
        raise InputError(f"StreamPETR has no place for {strange[0]!r}: it is not of our detector")
    tables = rotary_tables_of(settings)
    state = {f"img_backbone.{name}": table for name, table in tables.items()}
    constants = {
        theirs: torch.tensor(settings[ours])
        for theirs, ours in HEAD_CONSTANTS.items()
        if ours in settings
    }
    for prefix, (part, names) in PARTS.items():
        ours = under(tensors, f"{part}.")
        if part == "head" and ours:  # a backbone alone has no constants
            foreign = head_to_streampetr(ours, constants)
        else:
            foreign = {names.to_foreign(name): value for name, value in ours.items()}
        state |= {prefix + name: value for name, value in foreign.items()}
    return state


def head_from_streampetr(
    state_dict: Mapping[str, Tensor], prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The 3D head's tensors by our names, and the `HEAD_CONSTANTS` found by their foreign names.

    Raises:
        InputError: the copies of the shared class or box branch differ, or a name is of no head.
    """
    tensors = under(state_dict, prefix)
    constants = {name: tensors.pop(name) for name in HEAD_CONSTANTS if name in tensors}
    # Dropping a copy that differs would change what the detector computes.
    for name in list(tensors):
        first = re.sub(r"^(cls|reg)_branches\.\d+", r"\1_branches.0", name)
        if first == name:
            continue
        if first not in tensors or not torch.equal(tensors.pop(name), tensors[first]):
            raise InputError(
                f"{name} differs from {first}: this head does not share its branches between "
                "layers, which StreamPETR's does; it is another model"
            )
    ours = HEAD.weights_to_ours(tensors)
    if "reference_points" in ours and "start_points" not in ours:
        # A head that propagates no queries: the reference has no such tensor then, ours is empty.
        ours["start_points"] = ours["reference_points"].new_empty(0, 3)
    return ours, constants


def head_to_streampetr(
    tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Inverse of `head_from_streampetr`; the copies of the branches share their memory."""
    state = dict(constants)
    for name, value in tensors.items():
        if name == "start_points" and not len(value):
            continue  # see `head_from_streampetr`
        first = HEAD.to_foreign(name)
        for copy in range(_BRANCH_COPIES if "_branches.0." in first else 1):
            state[first.replace("_branches.0.", f"_branches.{copy}.")] = value
    return state
