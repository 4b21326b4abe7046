"""The EVA-02 vision transformer as a detectron2 backbone.

Pre-norm blocks of window attention and SwiGLU at one stride, no norm after the last block. "Global"
blocks are window blocks with a larger window, so that the square rotary table fits wide images.

Source: EVA-02 (arXiv 2303.11331), ViTDet (arXiv 2203.16527).
Shape letters: B images (streams x cameras), H W token map, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import torch
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone.block import Block, NormLayer
from streampetr_vit.modeling.backbone.layers import PatchEmbed
from streampetr_vit.modeling.backbone.selective_checkpoint import keep_products
from streampetr_vit.modeling.backbone.token_plan import MAX_PLANS, PlanKey, TokenPlan
from streampetr_vit.modeling.backbone.vit_arguments import (
    SELECTIVE,
    check_arguments,
    check_choices,
    check_windows,
    rotary_table,
)
from streampetr_vit.modeling.backbone.window_attention import WindowAttention
from streampetr_vit.modeling.ops.kernel_choice import AUTO, choose_kernel

LAYER_NORM: NormLayer = partial(nn.LayerNorm, eps=1e-6)


class ViT(Backbone):
    """EVA-02 ViT: images to one map of stride `patch_size`.

    Args:
        img_size: shorter side of the images in pixels; only sets the rotary table of the global
            blocks.
        patch_size: side of a patch in pixels, the stride of the output.
        embed_dim: C.
        num_heads: heads per block, divides `embed_dim`.
        mlp_ratio: hidden width of the MLP over C; 4 * 2 / 3 for EVA-02.
        qkv_bias: learn a bias of queries and values.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0.
        use_abs_pos: add a learned absolute position embedding.
        pt_hw_seq_len: side in tokens of the grid that the rotary positions are scaled to.
        intp_freq: rotary tables fit the windows; if False both are `pt_hw_seq_len` wide.
        rope: rotate queries and keys by their position.
        window_size: side in tokens of the windows of `window_block_indexes`.
        global_window_size: side in tokens of the windows of the other blocks; 0 = the whole map.
        window_block_indexes: blocks with local windows.
        residual_block_indexes: blocks that end with a convolutional bottleneck.
        use_act_checkpoint: in the backward pass, recompute whole blocks (True), or what is not a
            matrix product or an attention ("selective"), instead of keeping it.
        pretrain_img_size: side in pixels of the pre-training images; sets the shape of `pos_embed`.
        pretrain_use_cls_token: `pos_embed` has a leading row for a class token (it is not used).
        subln: normalise the attention heads before the output projection.
        xattn: False is the plain form, zero-padded windows and plain maths. Else the same function
            without the padding, by a fused kernel: True chooses one, or a name of
            `ops.kernel_choice.KERNEL_NAMES`. It reads the weights of most linear layers without
            calling these: hooks on them, or adapters in their place, need the plain form.

    Raises:
        ValueError: contradictory arguments; the message names them.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4 * 2 / 3,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.0,
        norm_layer: NormLayer = LAYER_NORM,
        use_abs_pos: bool = True,
        pt_hw_seq_len: int = 16,
        intp_freq: bool = True,
        rope: bool = True,
        window_size: int = 0,
        global_window_size: int = 0,
        window_block_indexes: Sequence[int] = (),
        residual_block_indexes: Sequence[int] = (),
        use_act_checkpoint: bool | str = False,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        subln: bool = False,
        xattn: bool | str = True,
        out_feature: str = "last_feat",
    ) -> None:
        super().__init__()
        window_blocks = frozenset(window_block_indexes)
        check_arguments(
            embed_dim, depth, num_heads, drop_path_rate, window_blocks, residual_block_indexes
        )
        check_windows(window_size, global_window_size, len(window_blocks), depth)
        check_choices(use_act_checkpoint, xattn)
        self.patch_size, self.in_chans = patch_size, in_chans
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        self.plain = not xattn
        self.kernel = xattn if isinstance(xattn, str) else AUTO if xattn else "math"
        self._plans: dict[PlanKey, TokenPlan] = {}
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}

        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.pos_embed = None
        if use_abs_pos:
            positions = (pretrain_img_size // patch_size) ** 2 + int(pretrain_use_cls_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim))

        # Two tables, one for all local and one for all global blocks: they are large.
        local_rope = global_rope = None
        rotary = partial(rotary_table, embed_dim // num_heads, pt_hw_seq_len, intp_freq)
        if rope and window_blocks:
            local_rope = rotary(window_size, window_size, "window_size", "window_size")
        if rope and len(window_blocks) < depth:
            grid = img_size // patch_size
            global_rope = rotary(
                global_window_size, grid, "global_window_size", "img_size // patch_size"
            )
        # The table of the whole map fits one map size only: (H, W) in tokens; None for any.
        self.required_map_size: tuple[int, int] | None = None
        if global_rope is not None and global_window_size == 0:
            self.required_map_size = (global_rope.size, global_rope.size)

        self.blocks = nn.ModuleList()
        for index in range(depth):
            local = index in window_blocks
            windows = window_size if local else global_window_size
            table = local_rope if local else global_rope
            attn = WindowAttention(embed_dim, num_heads, windows, table, qkv_bias, subln)
            rate = drop_path_rate * index / max(depth - 1, 1)  # the first block is never dropped
            residual = index in residual_block_indexes
            self.blocks.append(Block(attn, embed_dim, mlp_ratio, rate, norm_layer, residual))
        self._init_weights()

    def _init_weights(self) -> None:
        """First values as in EVA-02 detection; convolutions keep PyTorch's."""
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, in_chans, height, width) to one entry, `out_feature`: (B, C, H, W).

        Raises:
            InputError: wrong number of channels, a size that is not a multiple of `patch_size`, or
                a size that whole-map attention has no rotary table for.
        """
        map_size = self._map_size(x)
        positions = None
        if self.pos_embed is not None:
            positions = resize_positions(self.pos_embed, map_size, self.pretrain_use_cls_token)
        exporting = torch.compiler.is_exporting()  # a graph would hold the network for each image
        if self.plain or x.device.type != "cpu" or torch.is_grad_enabled() or exporting:
            maps = self._embed(x, positions)
        else:
            # One image at a time stays in a CPU's cache; the images do not see each other.
            maps = torch.cat([self._embed(image, positions) for image in x.split(1)])
        return {self._out_features[0]: maps.permute(0, 3, 1, 2)}  # (B, H, W, C) -> (B, C, H, W)

    @property
    def plans(self) -> tuple[TokenPlan, ...]:
        """The plans that it remembers. A captured graph must hold those that it reads."""
        return tuple(self._plans.values())

    def remember_plan(self, batch: int, image_size: tuple[int, int], device: torch.device) -> None:
        """Makes the plan of B images of (height, width) pixels now, for what is traced later."""
        height, width = (side // self.patch_size for side in image_size)
        self._plan((batch, height, width), device)

    def _embed(self, images: Tensor, positions: Tensor | None) -> Tensor:
        """Images to the last map, (B, H, W, C)."""
        x = self.patch_embed(images)  # (B, H, W, C)
        if positions is not None:
            x = x + positions
        if self.plain:
            for block in self.blocks:
                x = self._run(block, x)
            return x
        plan = self._plan(x.shape[:3], x.device)
        dtype = _autocast_dtype(x.device.type) or x.dtype
        kernel = choose_kernel(self.kernel, x.device, dtype, torch.is_grad_enabled())
        x = x.flatten(0, 2)  # (B, H, W, C) -> (n, C), row by row
        for block, layout, move in zip(self.blocks, plan.layouts, plan.moves, strict=True):
            # Local and global blocks have different windows: tokens move where the kind changes.
            x = self._run(block, x if move is None else x.index_select(0, move), layout, kernel)
        return plan.layouts[-1].restore(x)

    def _run(self, block: nn.Module, *arguments: Any) -> Tensor:
        """A block, checkpointed in training where that was asked for."""
        if not self.training or not self.use_act_checkpoint:
            return block(*arguments)
        if self.use_act_checkpoint == SELECTIVE:
            device = arguments[0].device.type
            dtype = _autocast_dtype(device)
            # Autocast as it is, but without its cache: a weight that this holds is not cast again,
            # and forward and recomputation would not match.
            anew = torch.autocast(device, dtype, cache_enabled=False) if dtype else nullcontext()
            with anew:
                return checkpoint(block, *arguments, use_reentrant=False, context_fn=keep_products)
        return checkpoint(block, *arguments, use_reentrant=False)

    def _plan(self, map_shape: Sequence[int], device: torch.device) -> TokenPlan:
        """The plan for (B, H, W) maps; made once for each of the last sizes."""
        batch, height, width = map_shape
        key = (batch, height, width, device)
        if key in self._plans:
            return self._plans[key]
        attentions = [cast(WindowAttention, block.attn) for block in self.blocks]
        windows = [(attention.window_size, attention.rope) for attention in attentions]
        # Tensors made in inference mode could not take part in a training step later.
        with torch.inference_mode(False):
            plan = TokenPlan.make(batch, (height, width), windows, device)
        if type(plan.layouts[0].order) is Tensor:  # and not a stand-in of a tracer
            while len(self._plans) >= MAX_PLANS:
                self._plans.pop(next(iter(self._plans)))  # the oldest
            self._plans[key] = plan
        return plan

    def _map_size(self, images: Tensor) -> tuple[int, int]:
        """(H, W) in tokens, after checking that the images fit the network."""
        if images.dim() != 4 or images.shape[1] != self.in_chans:
            raise InputError(
                f"images of shape {tuple(images.shape)} must be (B, {self.in_chans}, height, width)"
            )
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise InputError(
                f"image height {height} and width {width} must be multiples of "
                f"patch_size={self.patch_size}; resize, crop or pad the images"
            )
        map_size = (height // self.patch_size, width // self.patch_size)
        if self.required_map_size not in (None, map_size):
            raise InputError(
                f"a map of {map_size[0]}x{map_size[1]} tokens does not fit the whole-map rotary "
                f"table of {self.required_map_size[0]}x{self.required_map_size[1]}; for images "
                f"that are not square set global_window_size = img_size // {self.patch_size}"
            )
        return map_size


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    """The type that autocast gives to matrix products; None where it is off."""
    on = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if on else None


def resize_positions(pos_embed: Tensor, map_size: tuple[int, int], has_cls_row: bool) -> Tensor:
    """Fits the learned absolute positions to a map of (H, W) tokens.

    Args:
        pos_embed: (1, S * S + has_cls_row, C), a square grid in row-major order.

    Returns:
        (1, H, W, C), dtype of `pos_embed`; bicubic and in float32 unless the grid fits as it is.
    """
    table = pos_embed[:, 1:] if has_cls_row else pos_embed  # (1, S * S, C)
    side = int(table.shape[1] ** 0.5)
    table = table.unflatten(1, (side, side))  # (1, S, S, C)
    if map_size == (side, side):
        return table
    # (1, S, S, C) -> (1, C, S, S) -> (1, C, H, W) -> (1, H, W, C)
    wide = table.permute(0, 3, 1, 2).to(torch.promote_types(table.dtype, torch.float32))
    resized = functional.interpolate(wide, size=map_size, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).to(table.dtype)
