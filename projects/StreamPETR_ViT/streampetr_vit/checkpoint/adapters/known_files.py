"""The files that are known: how to tell them apart, and where each of their tensors belongs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from streampetr_vit.checkpoint.adapters.renaming import examples, is_rotary_table
from streampetr_vit.checkpoint.adapters.tables import HEAD_CONSTANTS, PARTS
from streampetr_vit.errors import CheckpointError

# Whose weights a file holds: name on the command line -> what it is.
FORMATS = {
    "ours": "a checkpoint of this project",
    "eva02-det": "an EVA-02 detection checkpoint (backbone.net.*, backbone.simfp_*)",
    "eva02-cls": "an EVA-02 ImageNet or masked-image checkpoint (blocks.*, patch_embed.*)",
    "streampetr": "a StreamPETR detector (img_backbone.*, pts_bbox_head.*)",
    "repdetr3d": "a RepDETR3D detector (img_backbone.*, pts_bbox_head.*, YOLOX 2D head)",
    "seed-remapped": "an EVA-02 backbone under StreamPETR's names (img_backbone.* alone)",
}
# Files with names of their own: pattern of the names that are used, prefix that makes them ours.
_PLACES = {
    "ours": (".+", ""),
    "eva02-det": (r"backbone\.(net\.|simfp_).+", ""),  # names as in detectron2's ViTDet
    # The ViT is the whole model there: its names have no prefix.
    "eva02-cls": (r"pos_embed|(patch_embed|blocks)\..+", "backbone.net."),
}
# Why tensors of foreign files have no place in our detector -> pattern of their names.
_LEFT_OUT = {
    "proposal, box and mask heads of EVA-02 detection": r"(proposal_generator|roi_heads)\..+",
    "pixel mean and deviation, of the configuration": r"pixel_(mean|std)",
    "copies of the shared class and box branches, equal to the first": (
        r"pts_bbox_head\.(cls|reg)_branches\.(?!0\.)\d+\..+"
    ),
    "settings, kept in the configuration": rf"pts_bbox_head\.({'|'.join(HEAD_CONSTANTS)})",
}
# Of eva02-cls alone: our detector has a part "head" as well.
_PRE_TRAINING_HEAD = {
    "class token, mask token, final norm and head of the pre-training": (
        r"(cls_token|mask_token|norm|fc_norm|lm_head|head)(\..+)?"
    )
}
_UNKNOWN = "unknown names"
# Blocks of other ViTs: pattern of a name -> what the file is.
_OTHER_BLOCKS = {
    r"mlp\.fc1_[gx]\.": "has timm's names (blocks.0.mlp.fc1_g); take the file of EVA-02's authors",
    r"mlp\.fc1\.": (
        "has the blocks of a plain ViT (mlp.fc1), as MAE's, and not EVA-02's (mlp.w1, mlp.w2, "
        "mlp.w3); they do not fit this backbone"
    ),
    r"attn\.qkv\.weight": (
        "has one weight for queries, keys and values (attn.qkv.weight), as EVA-02's Ti and S "
        "models; only the B and L models fit this backbone"
    ),
}


def format_of(names: Iterable[str], path: str) -> str:
    """Whose weights have these names, a key of `FORMATS`; a CheckpointError if nobody's."""
    names = list(names)
    for pattern, what in _OTHER_BLOCKS.items():
        if any(re.search(rf"\bblocks\.\d+\.{pattern}", name) for name in names):
            raise CheckpointError(f"{path} {what}")
    parts = {name.split(".")[0] for name in names}
    backbone = [name for name in names if name.startswith("img_backbone.")]
    if backbone and not any(name.startswith("img_backbone.blocks.") for name in backbone):
        raise CheckpointError(
            f"{path} is a detector with another backbone than EVA-02's ViT (it has "
            f"{examples(backbone)}); this project has no such backbone"
        )
    # The seed's script writes the backbone alone, under the reference's names.
    if backbone and not parts & {"pts_bbox_head", "img_roi_head", "img_neck"}:
        return "seed-remapped"
    if backbone or "pts_bbox_head" in parts:
        # Only RepDETR3D samples features in its decoder, or has a 2D head with levels.
        is_sparse = any(".attentions.1.weights_fc." in n or "multi_level_" in n for n in names)
        return "repdetr3d" if is_sparse else "streampetr"
    if "backbone" in parts:
        # EVA-02's detection files have our backbone names, but none of our heads.
        return "ours" if parts & {"head", "neck", "image_head"} else "eva02-det"
    if {"blocks", "patch_embed"} <= parts:
        return "eva02-cls"
    raise CheckpointError(
        f"{path} is none of the known checkpoints: its tensors are {examples(names)}. Known are: "
        + "; ".join(f"{name}, {what}" for name, what in FORMATS.items())
    )


def tensors_by_our_names(
    weights: Mapping[str, Tensor], source: str, only: str | None = None
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """A file's tensors by their names in our detector, or in a part; reason -> names left out."""
    tensors: dict[str, Tensor] = {}
    unused: dict[str, list[str]] = {}
    for name, value in weights.items():
        ours, why = _place_of(name, source)
        if only is not None and not ours.startswith(f"{only}."):
            why = why or f"not of the {only}"
        if why:
            unused.setdefault(why, []).append(name)
        else:
            tensors[ours] = value
    return tensors, unused


def _place_of(name: str, source: str) -> tuple[str, str]:
    """The name in our detector and "", or "" and why there is none."""
    why = "" if source == "ours" else why_left_out(name, source)
    if why:
        return "", why
    if source in _PLACES:
        pattern, prefix = _PLACES[source]
        return (prefix + name, "") if re.fullmatch(pattern, name) else ("", _UNKNOWN)
    for prefix, (part, names) in PARTS.items():
        if name.startswith(prefix) and (part == "backbone" or source != "seed-remapped"):
            return f"{part}.{names.to_ours(name.removeprefix(prefix))}", ""
    return "", _UNKNOWN


def why_left_out(name: str, source: str = "") -> str:
    """Why a tensor of a foreign file has no place in our detector; "" if it may have one."""
    if is_rotary_table(name):
        return "rotary tables, computed for the image size"
    reasons = _LEFT_OUT | _PRE_TRAINING_HEAD if source == "eva02-cls" else _LEFT_OUT
    return next((why for why, pattern in reasons.items() if re.fullmatch(pattern, name)), "")
