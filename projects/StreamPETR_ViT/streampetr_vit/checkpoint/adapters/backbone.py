"""Backbones: EVA-02's pre-training at other sizes, and the arguments of StreamPETR's EVAViT."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from streampetr_vit.errors import InputError


def resized_to_fit(tensors: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Patches and positions of a pre-training file at a model's sizes.

    Source: EVA-02's own script for patches of 14 to 16 pixels.

    Args:
        tensors: of the file, by the names of our detector.
        model: state dict of the detector; what it lacks gets the size of StreamPETR's ViT.

    Returns:
        name -> tensor, of those whose size differs.
    """
    wanted = {
        # The ViT takes patches of 16 pixels and was pre-trained on 14 x 14 of them.
        "backbone.net.patch_embed.proj.weight": (_resized_patches, 2, 16),
        "backbone.net.pos_embed": (_resized_positions, 1, 14 * 14 + 1),
    }
    changed: dict[str, Tensor] = {}
    for name, (resized, axis, published) in wanted.items():
        if name in tensors:
            size = model[name].shape[axis] if name in model else published
            changed[name] = resized(tensors[name], size)
    return {name: value for name, value in changed.items() if value is not tensors[name]}


def _resized_patches(weight: Tensor, side: int) -> Tensor:
    """(C, in_chans, p, p) -> (C, in_chans, side, side)."""
    if weight.ndim != 4:
        raise InputError(f"patch_embed.proj.weight {tuple(weight.shape)} must have four axes")
    return weight if weight.shape[2:] == (side, side) else _bicubic(weight, side)


def _resized_positions(pos_embed: Tensor, rows: int) -> Tensor:
    """(1, 1 + S * S, C), a row of the class token and a square grid, -> (1, rows, C)."""
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
    # (1, S * S, C) -> (1, C, S, S)
    grid = pos_embed[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
    resized = _bicubic(grid, new).flatten(2).transpose(1, 2)  # (1, C, T, T) -> (1, T * T, C)
    # The row of the class token has no place in the grid and stays as it is.
    return torch.cat((pos_embed[:, :1], resized), dim=1)  # (1, 1 + T * T, C)


def _bicubic(grid: Tensor, side: int) -> Tensor:
    """(A, B, S, S) -> (A, B, side, side), of the same dtype."""
    wide = grid.to(torch.promote_types(grid.dtype, torch.float32))
    # EVA-02 does not correct the magnitude either.
    resized = functional.interpolate(wide, size=(side, side), mode="bicubic", align_corners=False)
    return resized.to(grid.dtype)


# StreamPETR's names of arguments that `ViT` knows by another name.
_ARGUMENTS = {"with_cp": "use_act_checkpoint", "flash_attn": "xattn"}
# Accepted there without effect on the forward pass; `type` names the class.
_IGNORED = ("type", "use_rel_pos", "rel_pos_zero_init", "rope", "act_layer", "frozen", "sim_fpn")


def backbone_arguments_from_streampetr(
    config: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Translates the `img_backbone` dict of a StreamPETR configuration, its EVAViT.

    Returns:
        Arguments of `ViT`, and of `SimpleFeaturePyramid` (without `net`), or None if the
        configuration has no pyramid.
    """
    vit = {_ARGUMENTS.get(name, name): v for name, v in config.items() if name not in _IGNORED}
    sim_fpn = config.get("sim_fpn")
    if not sim_fpn:
        return vit, None
    scales = sim_fpn.get("scale_factors", (4, 2, 1, 0.5))
    stages = sim_fpn.get("out_indices", (2, 3, 4, 5))
    patch_size = vit.get("patch_size", 16)
    return vit, {
        "in_feature": vit.get("out_feature", "last_feat"),
        "out_channels": sim_fpn["out_channels"],
        # A map of stride 2^k is stage k.
        "scale_factors": [s for s in scales if math.log2(patch_size / s) in stages],
        "norm": sim_fpn.get("norm", "LN"),
        "half_scale": "conv",
    }
