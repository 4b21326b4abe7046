"""The 3D heads of StreamPETR and RepDETR3D."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters.renaming import Renaming, under
from streampetr_vit.errors import InputError

HEAD = Renaming(
    "StreamPETR's or RepDETR3D's 3D head",
    prefixes=(
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
        # All decoder layers share one branch of each kind; the reference lists copies of it.
        ("cls_branches.0.", "class_branch."),
        ("reg_branches.0.", "box_branch."),
    ),
    inner=(
        # RepDETR3D samples image features where StreamPETR has the cross-attention.
        (".attentions.1.weights_fc.", ".cross_attention.weights."),
        (".attentions.1.output_proj.", ".cross_attention.output."),
        (".attentions.1.learnable_fc.", ".cross_attention.points."),
        (".attentions.1.cam_embed.", ".cross_attention.camera_embed."),
        (".attentions.0.attn.", ".self_attention."),
        (".attentions.1.attn.", ".cross_attention."),
        (".ffns.0.layers.0.0.", ".feedforward.0."),
        (".ffns.0.layers.1.", ".feedforward.3."),
        (".reduce.0.", ".reduce."),
    ),
)
# What the reference keeps among its weights -> our setting of it (see `checkpoint.settings`).
HEAD_CONSTANTS = {
    "pc_range": "point_cloud_range",
    "position_range": "position_range",
    "code_weights": "code_weights",
    "match_costs": "match_costs",
}
# How often the reference lists the shared branches, whatever the number of decoder layers.
_BRANCH_COPIES = 6

rename_head_key = HEAD.to_ours


def head_from_streampetr(
    state_dict: Mapping[str, Tensor], prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Renames the reference's 3D head.

    Args:
        state_dict: of the reference.
        prefix: "pts_bbox_head." in detector checkpoints; other names are left out.

    Returns:
        The tensors under our head's names, and the `HEAD_CONSTANTS` found, by their foreign names.

    Raises:
        InputError: the copies of the shared class or box branch differ, or a name is not of
            StreamPETR's or RepDETR3D's head.
    """
    tensors = under(state_dict, prefix)
    constants = {name: tensors.pop(name) for name in HEAD_CONSTANTS if name in tensors}
    # Dropping a copy that differs would change what the detector computes.
    for name in [name for name in tensors if first_copy(name) != name]:
        first = first_copy(name)
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
    """The way back of `head_from_streampetr`; the copies of the branches share their memory.

    Raises:
        InputError: a name that is not of our head.
    """
    state = dict(constants)
    for name, value in tensors.items():
        if name == "start_points" and not len(value):
            continue  # of a head that propagates no queries; the reference has no such tensor
        first = HEAD.to_foreign(name)
        for copy in range(_BRANCH_COPIES if "_branches.0." in first else 1):
            state[first.replace("_branches.0.", f"_branches.{copy}.")] = value
    return state


def first_copy(name: str) -> str:
    """A foreign name itself; for a later copy of a shared branch, the same tensor of the first."""
    return re.sub(r"^(cls|reg)_branches\.\d+", r"\1_branches.0", name)
