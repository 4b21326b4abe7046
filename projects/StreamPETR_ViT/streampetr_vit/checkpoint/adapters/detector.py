"""Whole detectors of the StreamPETR family: StreamPETR and RepDETR3D."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from streampetr_vit.checkpoint.adapters.backbone import (
    STREAMPETR_BACKBONE,
    backbone_from_streampetr,
)
from streampetr_vit.checkpoint.adapters.head import (
    HEAD_CONSTANTS,
    head_from_streampetr,
    head_to_streampetr,
    is_branch,
    rename_head_key,
)
from streampetr_vit.checkpoint.adapters.image import (
    IMAGE_HEAD,
    image_head_from_streampetr,
    neck_from_streampetr,
    neck_key_to_streampetr,
    rename_image_head_key,
    rename_neck_key,
)
from streampetr_vit.checkpoint.adapters.renaming import ROTARY, Unused
from streampetr_vit.checkpoint.key_report import is_rotary_table
from streampetr_vit.errors import InputError

DETECTOR_PREFIXES = ("img_backbone.", "img_neck.", "img_roi_head.", "pts_bbox_head.")
_COPIES = Unused("copies of the shared class and box branches, equal to the first")
_CONSTANTS = Unused("settings, kept in the configuration")


def detector_from_streampetr(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a whole StreamPETR or RepDETR3D detector, for ours.

    Args:
        state_dict: of the reference. A detector without neck or 2D head has none of their names.

    Returns:
        The tensors under our detector's names, and the `HEAD_CONSTANTS` found.

    Raises:
        ValueError: names that no part of the detector has.
    """
    unknown = [name for name in state_dict if not name.startswith(DETECTOR_PREFIXES)]
    if unknown:
        raise InputError(
            f"{len(unknown)} tensors belong to no part of StreamPETR "
            f"({', '.join(DETECTOR_PREFIXES)}), among them {unknown[0]!r}"
        )
    head, constants = head_from_streampetr(state_dict, "pts_bbox_head.")
    parts = {
        "backbone": backbone_from_streampetr(state_dict, "img_backbone."),
        "neck": neck_from_streampetr(state_dict, "img_neck."),
        "image_head": image_head_from_streampetr(state_dict, "img_roi_head."),
        "head": head,
    }
    tensors = {
        f"{part}.{name}": value
        for part, weights in parts.items()
        for name, value in weights.items()
    }
    return tensors, constants


def translate_detector(name: str) -> str | Unused:
    """Name in our detector of a tensor of a StreamPETR or RepDETR3D detector, or why there is none.

    Raises:
        ValueError: a name that no part of the detector has.
    """
    if is_rotary_table(name):
        return ROTARY
    prefix = next((prefix for prefix in DETECTOR_PREFIXES if name.startswith(prefix)), None)
    if prefix is None:
        raise InputError(
            f"tensor {name!r} belongs to no part of StreamPETR ({', '.join(DETECTOR_PREFIXES)})"
        )
    rest = name.removeprefix(prefix)
    if prefix == "pts_bbox_head.":
        if rest in HEAD_CONSTANTS:
            return _CONSTANTS
        return _COPIES if is_branch(rest, copies_only=True) else f"head.{rename_head_key(rest)}"
    if prefix == "img_roi_head.":
        return f"image_head.{rename_image_head_key(rest)}"
    if prefix == "img_neck.":
        return f"neck.{rename_neck_key(rest)}"
    return f"backbone.{STREAMPETR_BACKBONE.to_ours(rest)}"


def detector_to_streampetr(
    tensors: Mapping[str, Tensor],
    constants: Mapping[str, Tensor],
    rotary: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The way back of `detector_from_streampetr`.

    Args:
        tensors: of our detector.
        constants: `HEAD_CONSTANTS`, for the head.
        rotary: rotary tables, named relative to the reference's backbone.

    Returns:
        The tensors under the reference's names.

    Raises:
        ValueError: a name that our detector does not have.
    """
    state = {f"img_backbone.{name}": table for name, table in rotary.items()}
    head: dict[str, Tensor] = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part == "head":
            head[rest] = value
            continue
        foreign: str | None = None
        if part == "backbone":
            foreign = _joined("img_backbone.", STREAMPETR_BACKBONE.to_foreign(rest))
        elif part == "image_head":
            foreign = _joined("img_roi_head.", IMAGE_HEAD.to_foreign(rest))
        elif part == "neck":
            foreign = f"img_neck.{neck_key_to_streampetr(rest)}"
        if foreign is None:
            raise InputError(
                f"{name!r} is no tensor of our detector; StreamPETR has no place for it"
            )
        state[foreign] = value
    if head:
        renamed = head_to_streampetr(head, constants)
        state |= {f"pts_bbox_head.{name}": value for name, value in renamed.items()}
    return state


def _joined(prefix: str, name: str | None) -> str | None:
    return None if name is None else prefix + name
