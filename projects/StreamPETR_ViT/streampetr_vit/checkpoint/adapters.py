"""Translates foreign checkpoints and configurations into ours; the only home of foreign names.

Every function takes a flat name -> tensor mapping and returns a new dict with the names of one of
our modules. Rotary tables are dropped: ours are computed (`modeling.backbone.rope`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# --- Backbone: EVA-02 ViT and its feature pyramid ------------------------------------------------
#
# Ours, relative to the backbone module: `net.*` (the ViT) and `simfp_{k}.*` (the pyramid).

_ROTARY_PARTS = ("rope", "rope_win", "rope_glb")


def is_rotary_table(name: str) -> bool:
    """Whether a foreign tensor is a rotary table, which no module of ours stores."""
    return any(part in _ROTARY_PARTS for part in name.split("."))


def backbone_from_streampetr(
    state_dict: Mapping[str, Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """Weights of StreamPETR's EVAViT, for our backbone.

    `adapter.simfp_{k}.*` becomes `simfp_{k}.*`, everything else `net.*`.

    Args:
        state_dict: foreign names.
        prefix: of the backbone's names, e.g. "img_backbone."; other names are left out.
    """
    weights = {}
    for name, tensor in _under(state_dict, prefix).items():
        is_pyramid = name.startswith("adapter.")
        weights[name.removeprefix("adapter.") if is_pyramid else f"net.{name}"] = tensor
    return weights


def backbone_from_eva_detection(
    state_dict: Mapping[str, Tensor], prefix: str = "backbone."
) -> dict[str, Tensor]:
    """Weights of EVA-02's detection backbone, whose names are ours already.

    Args:
        state_dict: foreign names.
        prefix: of the backbone's names; other names (box and mask heads) are left out.
    """
    return _under(state_dict, prefix)


def _under(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it and without rotary tables."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state_dict.items()
        if name.startswith(prefix) and not is_rotary_table(name)
    }


# StreamPETR's names of arguments that `ViT` knows by another name.
_STREAMPETR_ARGUMENTS = {"with_cp": "use_act_checkpoint", "flash_attn": "xattn"}
# Accepted there without effect on the forward pass; `type` names the class.
_STREAMPETR_IGNORED = ("type", "use_rel_pos", "rel_pos_zero_init", "rope", "act_layer", "frozen")


def backbone_arguments_from_streampetr(
    config: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Translates the arguments of StreamPETR's EVAViT.

    Args:
        config: the `img_backbone` dict of a StreamPETR configuration.

    Returns:
        Arguments of `ViT`, and of `SimpleFeaturePyramid` (without `net`), or None if the
        configuration has no pyramid.
    """
    vit = {
        _STREAMPETR_ARGUMENTS.get(name, name): value
        for name, value in config.items()
        if name not in (*_STREAMPETR_IGNORED, "sim_fpn")
    }
    sim_fpn = config.get("sim_fpn")
    if not sim_fpn:
        return vit, None
    scales = sim_fpn.get("scale_factors", (4, 2, 1, 0.5))
    stages = sim_fpn.get("out_indices", (2, 3, 4, 5))
    patch_size = vit.get("patch_size", 16)
    pyramid = {
        "in_feature": vit.get("out_feature", "last_feat"),
        "out_channels": sim_fpn["out_channels"],
        "scale_factors": [s for s in scales if math.log2(patch_size / s) in stages],
        "norm": sim_fpn.get("norm", "LN"),
        "half_scale": "conv",
    }
    return vit, pyramid


# --- StreamPETR head -----------------------------------------------------------------------------

# Reference prefix -> ours; the first that fits is used.
_HEAD_PREFIXES = (
    ("position_encoder.", "position_encoder.mlp."),
    ("coords_d", "position_encoder.depth_bins_m"),
    ("memory_embed.", "token_embed."),
    ("spatial_alignment.", "token_modulation."),
    ("featurized_pe.conv_reduce.", "position_gate.reduce."),
    ("featurized_pe.conv_expand.", "position_gate.expand."),
    ("query_embedding.", "alignment.query_embed."),
    ("time_embedding.", "alignment.time_embed."),
    ("ego_pose_pe.", "alignment.motion_position."),
    ("ego_pose_memory.", "alignment.motion_content."),
    ("reference_points.weight", "reference_points"),
    ("pseudo_reference_points.weight", "start_points"),
    ("transformer.decoder.", "decoder."),
    ("cls_branches.0.", "class_branch."),
    ("reg_branches.0.", "box_branch."),
)
_HEAD_INNER = (
    (".attentions.0.attn.", ".self_attention."),
    (".attentions.1.attn.", ".cross_attention."),
    (".ffns.0.layers.0.0.", ".feedforward.0."),
    (".ffns.0.layers.1.", ".feedforward.3."),
    (".reduce.0.", ".reduce."),
)
# Settings that the reference keeps among its weights; ours come from the configuration.
HEAD_CONSTANTS = ("code_weights", "match_costs", "pc_range", "position_range")


def head_from_streampetr(
    state_dict: Mapping[str, Tensor], prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Renames the reference's 3D head.

    Args:
        state_dict: of the reference; other keys than `prefix`'s are left out.
        prefix: `"pts_bbox_head."` in detector checkpoints.

    Returns:
        The tensors under our head's names, and the `HEAD_CONSTANTS` found, to be compared with
        the configuration.

    Raises:
        ValueError: the copies of the shared class or box branch differ.
    """
    tensors = _under(state_dict, prefix)
    constants = {name: tensors.pop(name) for name in HEAD_CONSTANTS if name in tensors}
    _drop_branch_copies(tensors)
    return {rename_head_key(name): value for name, value in tensors.items()}, constants


def rename_head_key(name: str) -> str:
    """Our name of one tensor of the reference's 3D head, given without prefix."""
    for theirs, ours in _HEAD_PREFIXES:
        if name.startswith(theirs):
            name = ours + name[len(theirs) :]
            break
    for theirs, ours in _HEAD_INNER:
        name = name.replace(theirs, ours)
    return name


def _drop_branch_copies(tensors: dict[str, Tensor]) -> None:
    """Keeps copy 0 of the branches that the reference lists once for every decoder layer."""
    copies = [name for name in tensors if re.match(r"(cls|reg)_branches\.[1-9]", name)]
    for name in copies:
        first = re.sub(r"_branches\.\d+", "_branches.0", name)
        if first not in tensors or not torch.equal(tensors.pop(name), tensors[first]):
            raise ValueError(
                f"{name} differs from {first}: this head does not share its branches between "
                "layers, which StreamPETR's does; it is another model"
            )


# --- StreamPETR's auxiliary 2D head and neck -----------------------------------------------------

_IMAGE_HEAD_LAYERS = {
    "shared_cls": "class_tower",
    "shared_reg": "box_tower",
    "cls": "class_logits",
    "centerness": "centerness",
    "ltrb": "box_sides",
    "center2d": "center_offset",
}


def image_head_from_streampetr(
    state_dict: Mapping[str, Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """Weights of StreamPETR's FocalHead, for ours.

    Args:
        state_dict: foreign names.
        prefix: `"img_roi_head."` in detector checkpoints; other names are left out.

    Raises:
        ValueError: a name is not of a FocalHead.
    """
    return {
        rename_image_head_key(name): tensor for name, tensor in _under(state_dict, prefix).items()
    }


def rename_image_head_key(name: str) -> str:
    """Our name of one tensor of the reference's 2D head, given without prefix."""
    layer, _, rest = name.partition(".")
    if layer not in _IMAGE_HEAD_LAYERS:
        raise ValueError(
            f"{name!r} is no tensor of StreamPETR's FocalHead, whose layers are "
            f"{', '.join(_IMAGE_HEAD_LAYERS)}; it is another 2D head"
        )
    return f"{_IMAGE_HEAD_LAYERS[layer]}.{rest}"


def neck_from_streampetr(state_dict: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Weights of StreamPETR's CPFPN, for ours.

    Args:
        state_dict: foreign names.
        prefix: `"img_neck."` in detector checkpoints; other names are left out.
    """
    return {
        name.replace(".conv.", "."): tensor for name, tensor in _under(state_dict, prefix).items()
    }


# --- Whole StreamPETR detector -------------------------------------------------------------------

_DETECTOR_PREFIXES = ("img_backbone.", "img_neck.", "img_roi_head.", "pts_bbox_head.")


def detector_from_streampetr(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a whole StreamPETR detector, for ours.

    Args:
        state_dict: of the reference. A detector without neck or 2D head has none of their names.

    Returns:
        The tensors under our detector's names, and the `HEAD_CONSTANTS` found.

    Raises:
        ValueError: names that no part of the detector has.
    """
    unknown = [name for name in state_dict if not name.startswith(_DETECTOR_PREFIXES)]
    if unknown:
        raise ValueError(
            f"{len(unknown)} tensors belong to no part of StreamPETR "
            f"({', '.join(_DETECTOR_PREFIXES)}), among them {unknown[0]!r}"
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
