"""State dicts with the documented names and shapes of foreign checkpoints, with made-up values.

Names and shapes are those of the published files: the names of EVA-02's box and mask heads are
examples. By default no memory is used for values: each tensor shows one number at every place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters.rotary import rotary_tables_of

Shape = tuple[int, ...]
Shapes = dict[str, Shape]


@dataclass(frozen=True)
class Size:
    """Of a ViT."""

    dim: int = 1024
    depth: int = 24
    hidden: int = 2730
    head_dim: int = 64
    global_blocks: tuple[int, ...] = (2, 5, 8, 11, 14, 17, 20, 23)


VIT_L = Size()
TINY = Size(dim=32, depth=3, hidden=80, head_dim=16, global_blocks=(2,))


def one_number(shape: Shape, index: int) -> Tensor:
    """A tensor that takes no memory, and differs from the next one."""
    return torch.full((1,) * len(shape), float(index % 97 + 1)).expand(shape)


def random_values(shape: Shape, index: int) -> Tensor:
    """Different values everywhere."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(index))


def filled(
    shapes: Shapes, values: Callable[[Shape, int], Tensor] = one_number
) -> dict[str, Tensor]:
    """Tensors of these shapes."""
    return {name: values(shape, index) for index, (name, shape) in enumerate(shapes.items())}


def under(prefix: str, shapes: Shapes) -> Shapes:
    """The same with a prefix."""
    return {prefix + name: shape for name, shape in shapes.items()}


def vit_shapes(size: Size = VIT_L, patch: int = 16, positions: int = 197) -> Shapes:
    """Parameters of EVA-02's ViT: 459 for ViT-L."""
    dim = size.dim
    shapes: Shapes = {
        "pos_embed": (1, positions, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
    }
    block = {
        **{f"{norm}.{kind}": (dim,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
        **{f"attn.{name}": (dim,) for name in ("q_bias", "v_bias", "proj.bias")},
        **{f"attn.{name}.weight": (dim, dim) for name in ("q_proj", "k_proj", "v_proj", "proj")},
        **{f"mlp.{name}.weight": (size.hidden, dim) for name in ("w1", "w2")},
        **{f"mlp.{name}.bias": (size.hidden,) for name in ("w1", "w2")},
        **{f"mlp.ffn_ln.{kind}": (size.hidden,) for kind in ("weight", "bias")},
        "mlp.w3.weight": (dim, size.hidden),
        "mlp.w3.bias": (dim,),
    }
    for index in range(size.depth):
        shapes |= under(f"blocks.{index}.", block)
    return shapes


def rotary_shapes(size: Size, window: int, global_window: int) -> Shapes:
    """The tables that detection models store: 52 for ViT-L."""
    sides = {"rope_win": window, "rope_glb": global_window}
    for index in range(size.depth):
        side = global_window if index in size.global_blocks else window
        sides[f"blocks.{index}.attn.rope"] = side
    return {
        f"{name}.freqs_{kind}": (side * side, size.head_dim)
        for name, side in sides.items()
        for kind in ("cos", "sin")
    }


def pyramid_shapes(dim: int = 1024, out: int = 256, conv_levels: tuple[int, ...] = ()) -> Shapes:
    """Levels 2 to 5, 32 tensors; `conv_levels` of (5, 6) start with a learned convolution."""
    stems: dict[int, Shapes] = {
        2: {
            "0.weight": (dim, dim // 2, 2, 2),
            "0.bias": (dim // 2,),
            "1.weight": (dim // 2,),
            "1.bias": (dim // 2,),
            "3.weight": (dim // 2, dim // 4, 2, 2),
            "3.bias": (dim // 4,),
        },
        3: {"0.weight": (dim, dim // 2, 2, 2), "0.bias": (dim // 2,)},
        4: {},
        5: {"0.weight": (dim, dim, 2, 2), "0.bias": (dim,)} if 5 in conv_levels else {},
        6: {"0.weight": (dim, dim, 4, 4), "0.bias": (dim,)},
    }
    first_conv = {2: (4, dim // 4), 3: (1, dim // 2), 4: (0, dim), 5: (1, dim), 6: (1, dim)}
    shapes: Shapes = {}
    for level in (2, 3, 4, 5, *([6] if 6 in conv_levels else [])):
        index, channels = first_conv[level]
        convs: Shapes = {}
        for offset, (inputs, kernel) in enumerate(((channels, 1), (out, 3))):
            name = f"{index + offset}"
            convs[f"{name}.weight"] = (out, inputs, kernel, kernel)
            convs |= {f"{name}.norm.{kind}": (out,) for kind in ("weight", "bias")}
        shapes |= under(f"simfp_{level}.", stems[level] | convs)
    return shapes


DETECTION_HEADS: Shapes = {
    "proposal_generator.rpn_head.conv.conv0.weight": (256, 256, 3, 3),
    "proposal_generator.rpn_head.objectness_logits.bias": (3,),
    "roi_heads.box_predictor.0.cls_score.weight": (81, 1024),
    "roi_heads.mask_head.predictor.bias": (80,),
}


def eva_detection(size: Size = VIT_L, out: int = 256, grid: int = 96) -> Shapes:
    """An EVA-02 detection file: ViT, tables of 1536 pixels, a pyramid with max pool, heads."""
    vit = vit_shapes(size) | rotary_shapes(size, 16, grid)
    backbone = under("net.", vit) | pyramid_shapes(size.dim, out)
    return under("backbone.", backbone) | DETECTION_HEADS


def eva_pre_training(size: Size = VIT_L, positions: int = 1025) -> Shapes:
    """An EVA-02 ImageNet file with patches of 14 pixels; 1025 positions for 448 pixels."""
    return {
        "cls_token": (1, 1, size.dim),
        **vit_shapes(size, patch=14, positions=positions),
        "rope.freqs_cos": (positions - 1, size.head_dim),
        "rope.freqs_sin": (positions - 1, size.head_dim),
        "fc_norm.weight": (size.dim,),
        "fc_norm.bias": (size.dim,),
        "head.weight": (21841, size.dim),
        "head.bias": (21841,),
    }


def remapped(size: Size = VIT_L, out: int = 256) -> Shapes:
    """The seed's file: an EVA-02 detection backbone under StreamPETR's names."""
    vit = vit_shapes(size) | rotary_shapes(size, 16, 96)
    return under("img_backbone.", vit | under("adapter.", pyramid_shapes(size.dim, out)))


def _modulation(name: str, inputs: int, dim: int) -> Shapes:
    return {
        f"{name}.reduce.0.weight": (dim, inputs),
        f"{name}.reduce.0.bias": (dim,),
        **{f"{name}.{part}.weight": (dim, dim) for part in ("gamma", "beta")},
        **{f"{name}.{part}.bias": (dim,) for part in ("gamma", "beta")},
    }


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def repdetr3d_head(dim: int = 256) -> Shapes:
    """RepDETR3D's 3D head: 283 tensors."""
    shapes: Shapes = {"code_weights": (10,), "match_costs": (10,), "pc_range": (6,)}
    for copy in range(6):
        branch = f"cls_branches.{copy}"
        for layer in (0, 3):
            shapes |= _linear(f"{branch}.{layer}", dim, dim) | _norm(f"{branch}.{layer + 1}", dim)
        shapes |= _linear(f"{branch}.6", 10, dim)
        for layer in (0, 2):
            shapes |= _linear(f"reg_branches.{copy}.{layer}", dim, dim)
        shapes |= _linear(f"reg_branches.{copy}.4", 10, dim)
    shapes |= {"reference_points.weight": (644, 3), "pseudo_reference_points.weight": (256, 3)}
    shapes |= _linear("query_embedding.0", dim, dim * 3 // 2) | _linear(
        "query_embedding.2", dim, dim
    )
    shapes |= _modulation("spatial_alignment", 14, dim)
    shapes |= _linear("time_embedding.0", dim, dim) | _norm("time_embedding.1", dim)
    for name in ("ego_pose_pe", "ego_pose_memory"):
        shapes |= _modulation(name, 180, dim)
    for index in range(6):
        layer = f"transformer.decoder.layers.{index}"
        attention, sampling = f"{layer}.attentions.0.attn", f"{layer}.attentions.1"
        shapes |= {f"{attention}.in_proj_weight": (3 * dim, dim)}
        shapes |= {f"{attention}.in_proj_bias": (3 * dim,)}
        shapes |= _linear(f"{attention}.out_proj", dim, dim)
        shapes |= _linear(f"{sampling}.weights_fc", 416, dim)
        shapes |= _linear(f"{sampling}.output_proj", dim, dim)
        shapes |= _linear(f"{sampling}.learnable_fc", 39, dim)
        shapes |= _linear(f"{sampling}.cam_embed.0", dim // 2, 12)
        shapes |= _linear(f"{sampling}.cam_embed.2", dim, dim // 2)
        shapes |= _norm(f"{sampling}.cam_embed.4", dim)
        shapes |= _linear(f"{layer}.ffns.0.layers.0.0", 4 * dim, dim)
        shapes |= _linear(f"{layer}.ffns.0.layers.1", dim, 4 * dim)
        for norm in range(3):
            shapes |= _norm(f"{layer}.norms.{norm}", dim)
    return shapes


def yolox_head(dim: int = 256) -> Shapes:
    """RepDETR3D's 2D head: 128 tensors."""
    shapes: Shapes = {}
    for level in range(4):
        for tower in ("cls", "reg"):
            for block in range(2):
                name = f"multi_level_{tower}_convs.{level}.{block}"
                shapes[f"{name}.conv.weight"] = (dim, dim, 3, 3)
                statistics = ("weight", "bias", "running_mean", "running_var")
                shapes |= {f"{name}.bn.{kind}": (dim,) for kind in statistics}
                shapes[f"{name}.bn.num_batches_tracked"] = ()
        for part, outputs in (("cls", 10), ("reg", 4), ("obj", 1), ("centers2d", 2)):
            shapes[f"multi_level_conv_{part}.{level}.weight"] = (outputs, dim, 1, 1)
            shapes[f"multi_level_conv_{part}.{level}.bias"] = (outputs,)
    return shapes


def repdetr3d(size: Size = VIT_L) -> Shapes:
    """A RepDETR3D detector: 956 tensors for ViT-L."""
    vit = vit_shapes(size) | rotary_shapes(size, 16, 20)
    pyramid = under("adapter.", pyramid_shapes(size.dim, conv_levels=(5,)))
    return {
        **under("img_backbone.", vit | pyramid),
        **under("pts_bbox_head.", repdetr3d_head()),
        **under("img_roi_head.", yolox_head()),
    }


def as_detector(tensors: dict[str, Tensor], size: Size = VIT_L) -> dict[str, Tensor]:
    """The same with what a detector of 800x320 has by its nature.

    All copies of the shared branches equal the first; rotary tables and ranges are true.
    """
    for name in tensors:
        head, dot, rest = name.partition("_branches.")
        if dot:
            tensors[name] = tensors[f"{head}_branches.0.{rest.partition('.')[2]}"]
    blocks = [20 if index in size.global_blocks else 16 for index in range(size.depth)]
    rotary = dict(head_dim=size.head_dim, pretrain=16, window=16, blocks=blocks)
    tables = rotary_tables_of({"rotary": {**rotary, "global": 20}})
    tensors |= {f"img_backbone.{name}": table for name, table in tables.items()}
    tensors["pts_bbox_head.pc_range"] = torch.tensor([-51.2, -51.2, -5.0, 51.2, 51.2, 3.0])
    weights = torch.tensor([2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    tensors |= {f"pts_bbox_head.{n}": weights.clone() for n in ("code_weights", "match_costs")}
    return tensors


def as_mmcv(tensors: dict[str, Tensor], **meta: Any) -> dict[str, Any]:
    """mmcv's layout."""
    return {"meta": {"mmcv_version": "1.6.0", **meta}, "state_dict": tensors, "optimizer": {}}
