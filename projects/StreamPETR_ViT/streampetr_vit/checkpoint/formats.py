"""Finds the weights in a checkpoint file's content, and says whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.checkpoint.fit import examples
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
# Where files keep their weights, in the order of preference; else they are the whole content.
_WEIGHTS = ("model", "module", "state_dict")
_AVERAGED_WEIGHTS = ("ema_state", "model_ema")
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


def weights_of(content: Mapping[str, Any], path: str, *, averaged: bool = False) -> dict[str, Any]:
    """The weights in a file's content, without the prefix "module." of distributed training.

    Args:
        content: of `read_checkpoint`.
        path: the file, for messages.
        averaged: take the moving average that EVA-02's training keeps beside the weights.

    Raises:
        CheckpointError: no weights found, or what is there is no dict of whole, dense tensors.
    """
    wanted = _AVERAGED_WEIGHTS if averaged else _WEIGHTS
    entry = next((name for name in wanted if isinstance(content.get(name), Mapping)), None)
    if averaged and entry is None:
        raise CheckpointError(
            f"{path} holds no averaged weights ({' or '.join(_AVERAGED_WEIGHTS)}), only: "
            f"{', '.join(map(str, content)) if len(content) < 9 else examples(content)}; "
            "leave out --ema"
        )
    weights = dict(content if entry is None else content[entry])
    strange = next(filter(None, (_what_is_wrong(*item) for item in weights.items())), None)
    if strange is not None or not weights:
        raise CheckpointError(
            f"{path}: {strange or 'empty'}: no dict of tensors under {', '.join(_WEIGHTS)}, nor "
            f"at the top, whose entries are {examples(content)}"
        )
    # Only where every name has it: "module." may be a part of the model as well.
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def _what_is_wrong(name: object, value: object) -> str | None:
    """Why an entry is no tensor that a model can take; None for one that is."""
    if not isinstance(value, Tensor):
        return f"entry {name!r} is a {type(value).__name__}, not a tensor"
    if not isinstance(name, str):
        return f"the name {name!r} of a tensor is a {type(name).__name__}, not a string"
    if value.is_meta or value.layout != torch.strided:
        return f"{name!r} is {'without data (meta)' if value.is_meta else value.layout}, not dense"
    # An expanded tensor shows one number at many places: no real file has such weights.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"{name!r} repeats its numbers (expanded), {value.numel()} are not in the file"
    return None


def format_of(names: Iterable[str], path: str) -> str:
    """Whose weights have these names, a key of `FORMATS`.

    Raises:
        CheckpointError: the names are of no known file; the message says what they look like.
    """
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
