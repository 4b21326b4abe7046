"""The 3D heads of StreamPETR and RepDETR3D."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters.renaming import Renaming, under
from streampetr_vit.errors import InputError

# What RepDETR3D has beside the parts that it shares with StreamPETR. In its decoder layers the
# sampling of image features stands where the cross-attention does.
_SAMPLING_PARTS = (
    ("weights_fc", "weights"),
    ("output_proj", "output"),
    ("learnable_fc", "points"),
    ("cam_embed", "camera_embed"),
)

HEAD = Renaming(
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
        ("cls_branches.0.", "class_branch."),
        ("reg_branches.0.", "box_branch."),
    ),
    inner=(
        *(
            (f".attentions.1.{theirs}.", f".cross_attention.{ours}.")
            for theirs, ours in _SAMPLING_PARTS
        ),
        (".attentions.0.attn.", ".self_attention."),
        (".attentions.1.attn.", ".cross_attention."),
        (".ffns.0.layers.0.0.", ".feedforward.0."),
        (".ffns.0.layers.1.", ".feedforward.3."),
        (".reduce.0.", ".reduce."),
    ),
)
# Settings that the reference keeps among its weights; ours come from the configuration.
HEAD_CONSTANTS = ("code_weights", "match_costs", "pc_range", "position_range")
# How often the reference lists the shared branches, whatever the number of decoder layers.
_BRANCH_COPIES = 6


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
        ValueError: the copies of the shared class or box branch differ, or a name is not of
            StreamPETR's or RepDETR3D's head.
    """
    tensors = under(state_dict, prefix)
    constants = {name: tensors.pop(name) for name in HEAD_CONSTANTS if name in tensors}
    _drop_branch_copies(tensors)
    ours = {rename_head_key(name): value for name, value in tensors.items()}
    if "reference_points" in ours and "start_points" not in ours:
        # A head that propagates no queries; the reference has no such tensor then, ours is empty.
        ours["start_points"] = ours["reference_points"].new_empty(0, 3)
    return ours, constants


def head_to_streampetr(
    tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The way back of `head_from_streampetr`; the copies of the branches share their memory.

    Args:
        tensors: of our head, by name.
        constants: `HEAD_CONSTANTS` to put among them.

    Raises:
        ValueError: a name that is not of our head.
    """
    state = dict(constants)
    for name, value in tensors.items():
        if name == "start_points" and not len(value):
            continue  # the reference has no such tensor then
        foreign = HEAD.to_foreign(name)
        if foreign is None:
            raise InputError(f"{name!r} is no tensor of our 3D head")
        if is_branch(foreign):
            for copy in range(_BRANCH_COPIES):
                state[foreign.replace("_branches.0.", f"_branches.{copy}.")] = value
        else:
            state[foreign] = value
    return state


def rename_head_key(name: str) -> str:
    """Our name of one tensor of the reference's 3D head, given without prefix.

    Raises:
        ValueError: a name is not of StreamPETR's or RepDETR3D's head.
    """
    ours = HEAD.to_ours(name)
    if ours is None:
        raise InputError(
            f"{name!r} is no tensor of StreamPETR's or RepDETR3D's 3D head; it is another 3D head"
        )
    return ours


def is_branch(name: str, copies_only: bool = False) -> bool:
    """Whether a foreign tensor is of the shared branches.

    Args:
        name: without prefix.
        copies_only: only of those after the first.
    """
    return re.match(rf"(cls|reg)_branches\.{'[1-9]' if copies_only else ''}", name) is not None


def _drop_branch_copies(tensors: dict[str, Tensor]) -> None:
    """Keeps copy 0 of the branches that the reference lists once for every decoder layer."""
    copies = [name for name in tensors if is_branch(name, copies_only=True)]
    for name in copies:
        first = re.sub(r"_branches\.\d+", "_branches.0", name)
        if first not in tensors or not torch.equal(tensors.pop(name), tensors[first]):
            raise InputError(
                f"{name} differs from {first}: this head does not share its branches between "
                "layers, which StreamPETR's does; it is another model"
            )
