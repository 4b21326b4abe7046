"""StreamPETR's EVAViT with its feature pyramid, and EVA-02's files.

Ours, relative to the backbone module: `net.*` (the ViT) and `simfp_{k}.*` (the pyramid).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from streampetr_vit.checkpoint.adapters.renaming import ROTARY, Renaming, Unused, under
from streampetr_vit.checkpoint.key_report import is_rotary_table, why_left_out
from streampetr_vit.errors import InputError

STREAMPETR_BACKBONE = Renaming((("adapter.simfp_", "simfp_"), ("", "net.")))


def backbone_from_streampetr(
    state_dict: Mapping[str, Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """Weights of StreamPETR's EVAViT, for our backbone.

    `adapter.simfp_{k}.*` becomes `simfp_{k}.*`, everything else `net.*`.

    Args:
        state_dict: foreign names.
        prefix: of the backbone's names, e.g. "img_backbone."; other names are left out.
    """
    tensors = under(state_dict, prefix)
    return {STREAMPETR_BACKBONE.to_ours(name) or name: value for name, value in tensors.items()}


def backbone_from_eva_detection(
    state_dict: Mapping[str, Tensor], prefix: str = "backbone."
) -> dict[str, Tensor]:
    """Weights of EVA-02's detection backbone, whose names are ours already.

    Args:
        state_dict: foreign names.
        prefix: of the backbone's names; other names (box and mask heads) are left out.
    """
    return under(state_dict, prefix)


# --- Whole files: the name in our detector, or why there is none ---------------------------------

UNKNOWN = Unused("unknown names")
_PRE_TRAINING_HEAD = Unused("class token, mask token, final norm and head of the pre-training")
_PRE_TRAINING_PARTS = ("cls_token", "mask_token", "norm", "fc_norm", "lm_head", "head")


def translate_eva_detection(name: str) -> str | Unused:
    """Name in our detector of a tensor of an EVA-02 detection file."""
    why = why_left_out(name)
    if why is not None:
        return Unused(why)
    return name if name.startswith(("backbone.net.", "backbone.simfp_")) else UNKNOWN


def translate_eva_pre_training(name: str) -> str | Unused:
    """Name in our detector of a tensor of an EVA-02 ImageNet or masked-image file."""
    if is_rotary_table(name):
        return ROTARY
    part = name.split(".")[0]
    if part in _PRE_TRAINING_PARTS:
        return _PRE_TRAINING_HEAD
    return f"backbone.net.{name}" if part in ("pos_embed", "patch_embed", "blocks") else UNKNOWN


def translate_remapped(name: str) -> str | Unused:
    """Name in our detector of a tensor of a file that holds `img_backbone.*` alone."""
    rest = name.removeprefix("img_backbone.")
    if is_rotary_table(name):
        return ROTARY
    return UNKNOWN if rest == name else f"backbone.{STREAMPETR_BACKBONE.to_ours(rest)}"


# --- Patch and position tables of another size ---------------------------------------------------


def resize_patch_embed(weight: Tensor, patch_size: int) -> Tensor:
    """Fits the kernel of the patch embedding to another patch size.

    EVA-02's own rule for 14 to 16: bicubic, without correcting the magnitude.

    Args:
        weight: (C, in_chans, p, p).
        patch_size: side in pixels.

    Returns:
        (C, in_chans, patch_size, patch_size), dtype of `weight`; `weight` itself if it is that.

    Raises:
        ValueError: another number of axes.
    """
    if weight.ndim != 4:
        raise InputError(f"patch_embed.proj.weight {tuple(weight.shape)} must have four axes")
    if weight.shape[2:] == (patch_size, patch_size):
        return weight
    return _bicubic(weight, patch_size)


def resize_position_table(pos_embed: Tensor, rows: int) -> Tensor:
    """Fits learned positions to another grid, as EVA-02's own script does.

    Args:
        pos_embed: (1, 1 + S * S, C), a row of the class token and a square grid.
        rows: 1 + T * T.

    Returns:
        (1, rows, C), dtype of `pos_embed`; the first row as it is. `pos_embed` itself if it is
        that.

    Raises:
        ValueError: other axes, or either number of rows is not one more than a square.
    """
    if pos_embed.ndim != 3 or len(pos_embed) != 1:
        raise InputError(f"pos_embed {tuple(pos_embed.shape)} must be (1, rows, channels)")
    if pos_embed.shape[1] == rows:
        return pos_embed
    old, new = (math.isqrt(max(count - 1, 0)) for count in (pos_embed.shape[1], rows))
    if not old or not new or old * old + 1 != pos_embed.shape[1] or new * new + 1 != rows:
        raise InputError(
            f"pos_embed has {pos_embed.shape[1]} rows and the model {rows}: both must be a class "
            "row and a square grid; a file without class row cannot be resized (in the model: "
            "backbone.net.pretrain_use_cls_token=True)"
        )
    grid = pos_embed[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)  # (1, C, S, S)
    resized = _bicubic(grid, new).flatten(2).transpose(1, 2)  # (1, C, T, T) -> (1, T * T, C)
    return torch.cat((pos_embed[:, :1], resized), dim=1)


def _bicubic(grid: Tensor, side: int) -> Tensor:
    """(a, b, S, S) to (a, b, side, side), in float32 at least."""
    wide = grid.to(torch.promote_types(grid.dtype, torch.float32))
    resized = functional.interpolate(wide, size=(side, side), mode="bicubic", align_corners=False)
    return resized.to(grid.dtype)


# --- Arguments -----------------------------------------------------------------------------------

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
