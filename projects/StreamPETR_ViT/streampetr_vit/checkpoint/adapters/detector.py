"""Whole files: the name in our detector of each tensor, or why it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from streampetr_vit.checkpoint.adapters.backbone import BACKBONE
from streampetr_vit.checkpoint.adapters.head import (
    HEAD,
    HEAD_CONSTANTS,
    first_copy,
    head_from_streampetr,
    head_to_streampetr,
)
from streampetr_vit.checkpoint.adapters.image import IMAGE_HEAD, NECK
from streampetr_vit.checkpoint.adapters.renaming import (
    ROTARY,
    Renaming,
    Unused,
    is_rotary_table,
    under,
)
from streampetr_vit.checkpoint.adapters.rotary import settings_from_rotary_tables
from streampetr_vit.errors import InputError

# Parts of the reference's detectors: prefix there -> part of ours, and the names in it.
_PARTS: dict[str, tuple[str, Renaming]] = {
    "img_backbone.": ("backbone", BACKBONE),
    "img_neck.": ("neck", NECK),
    "img_roi_head.": ("image_head", IMAGE_HEAD),
    "pts_bbox_head.": ("head", HEAD),
}
_UNKNOWN = Unused("unknown names")
_DETECTION_HEADS = Unused("proposal, box and mask heads of EVA-02 detection")
_PIXELS = Unused("pixel mean and deviation, of the configuration")
_PRE_TRAINING_HEAD = Unused("class token, mask token, final norm and head of the pre-training")
_COPIES = Unused("copies of the shared class and box branches, equal to the first")
_CONSTANTS = Unused("settings, kept in the configuration")


def why_left_out(name: str) -> Unused | None:
    """Why a tensor of EVA-02's detection files has no place in a detector; None if it has one."""
    if is_rotary_table(name):
        return ROTARY
    if name.startswith(("proposal_generator.", "roi_heads.")):
        return _DETECTION_HEADS
    return _PIXELS if name in ("pixel_mean", "pixel_std") else None


def _of_eva_detection(name: str) -> str | Unused:
    # Its backbone has our names, as detectron2's ViTDet.
    ours = name.startswith(("backbone.net.", "backbone.simfp_"))
    return why_left_out(name) or (name if ours else _UNKNOWN)


def _of_eva_pre_training(name: str) -> str | Unused:
    if is_rotary_table(name):
        return ROTARY
    # The ViT is the whole model there: its names have no prefix.
    part = name.split(".")[0]
    if part in ("cls_token", "mask_token", "norm", "fc_norm", "lm_head", "head"):
        return _PRE_TRAINING_HEAD
    return f"backbone.net.{name}" if part in ("pos_embed", "patch_embed", "blocks") else _UNKNOWN


def _of_remapped_backbone(name: str) -> str | Unused:
    return _of_streampetr(name) if name.startswith("img_backbone.") else _UNKNOWN


def _of_streampetr(name: str) -> str | Unused:
    if is_rotary_table(name):
        return ROTARY
    prefix = next((prefix for prefix in _PARTS if name.startswith(prefix)), None)
    if prefix is None:
        raise InputError(f"tensor {name!r} belongs to no part of StreamPETR ({', '.join(_PARTS)})")
    rest, (part, names) = name.removeprefix(prefix), _PARTS[prefix]
    if part == "head" and rest in HEAD_CONSTANTS:
        return _CONSTANTS
    if part == "head" and first_copy(rest) != rest:
        return _COPIES
    return f"{part}.{names.to_ours(rest)}"


# By the keys of `checkpoint.formats.FORMATS`.
TRANSLATIONS: dict[str, Callable[[str], str | Unused]] = {
    "ours": lambda name: name,
    "eva02-det": _of_eva_detection,
    "eva02-cls": _of_eva_pre_training,
    "seed-remapped": _of_remapped_backbone,
    "streampetr": _of_streampetr,
    "repdetr3d": _of_streampetr,
}


def detector_from_streampetr(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a whole StreamPETR or RepDETR3D detector, for ours.

    Returns:
        The tensors under our detector's names, and the `HEAD_CONSTANTS` found.

    Raises:
        InputError: names that no part of the detector has, or a head that `head_from_streampetr`
            refuses.
    """
    names = {name: _of_streampetr(name) for name in state_dict}
    tensors = {ours: state_dict[n] for n, ours in names.items() if isinstance(ours, str)}
    head, constants = head_from_streampetr(state_dict, "pts_bbox_head.")  # compares the copies
    return tensors | {f"head.{name}": value for name, value in head.items()}, constants


def settings_from_streampetr(
    state_dict: Mapping[str, Tensor], constants: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The settings (see `checkpoint.settings`) that the reference keeps among its weights."""
    prefix = "img_backbone."
    tables = {n.removeprefix(prefix): t for n, t in state_dict.items() if n.startswith(prefix)}
    settings = {HEAD_CONSTANTS[name]: value.tolist() for name, value in constants.items()}
    return settings | settings_from_rotary_tables(tables)


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

    Raises:
        InputError: a name that our detector does not have.
    """
    state = {f"img_backbone.{name}": table for name, table in rotary.items()}
    for prefix, (part, names) in _PARTS.items():
        ours = under(tensors, f"{part}.")
        if part != "head":
            state |= {prefix + names.to_foreign(name): value for name, value in ours.items()}
        elif ours:
            head = head_to_streampetr(ours, constants)
            state |= {prefix + name: value for name, value in head.items()}
    strange = [name for name in tensors if name.split(".")[0] not in dict(_PARTS.values())]
    if strange:
        raise InputError(f"StreamPETR has no place for {strange[0]!r}: it is not of our detector")
    return state
