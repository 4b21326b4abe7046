"""The EVA-02 vision transformer as a detectron2 backbone.

Pre-norm blocks of window attention and SwiGLU at one stride, no norm after the last block. "Global"
blocks are window blocks with a larger window, so that the square rotary table stays valid for wide
images; a global window of 0 attends over the whole (then necessarily square) map.

Source: EVA-02 (arXiv 2303.11331), ViTDet (arXiv 2203.16527).
Shape letters: B images (streams x cameras), H W token map, C channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from streampetr_vit.modeling.backbone.layers import (
    BottleneckResidual,
    DropPath,
    PatchEmbed,
    SwiGLU,
)
from streampetr_vit.modeling.backbone.rope import RotaryEmbedding2d
from streampetr_vit.modeling.backbone.selective_checkpoint import keep_products
from streampetr_vit.modeling.backbone.token_plan import MAX_PLANS, PlanKey, TokenPlan
from streampetr_vit.modeling.backbone.window_attention import WindowAttention
from streampetr_vit.modeling.backbone.windows import WindowLayout
from streampetr_vit.modeling.ops.padded_attention import AUTO, KERNEL_NAMES, choose_kernel

SELECTIVE = "selective"  # activation checkpointing that keeps products and attentions
NormLayer = Callable[[int], nn.Module]
LAYER_NORM: NormLayer = partial(nn.LayerNorm, eps=1e-6)


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and a residual around it.

    Args:
        attn: maps (B, H, W, C) to the same shape.
        dim: C.
        mlp_ratio: width of the MLP's hidden layer over C (truncated).
        drop_path_rate: probability of dropping either branch for an image.
        norm_layer: makes a norm from a width.
        residual: append a convolutional bottleneck block.
    """

    def __init__(
        self,
        attn: WindowAttention,
        dim: int,
        mlp_ratio: float,
        drop_path_rate: float,
        norm_layer: NormLayer,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = attn
        self.norm2 = norm_layer(dim)
        self.mlp = SwiGLU(dim, int(dim * mlp_ratio), norm_layer)
        self.drop_path = DropPath(drop_path_rate)
        self.residual = BottleneckResidual(dim) if residual else None

    def forward(
        self, x: Tensor, layout: WindowLayout | None = None, kernel: str = "sdpa"
    ) -> Tensor:
        """One block.

        Args:
            x: (B, H, W, C), or (n, C) in window order.
            layout: of x in window order; None for a map, the plain form.
            kernel: of the attention in window order.

        Returns:
            The shape of x.
        """
        if layout is None:
            x = x + self.drop_path(self.attn(self.norm1(x)))
            x = x + self.drop_path(self.mlp(self.norm2(x)))
            return x if self.residual is None else self.residual(x)
        x = x + self.drop_path(self.attn.attend(self.norm1(x), layout, kernel), layout)
        x = x + self.drop_path(self.mlp.fused(self.norm2(x)), layout)
        return x if self.residual is None else layout.arrange(self.residual(layout.restore(x)))


class ViT(Backbone):
    """EVA-02 ViT: images to one map of stride `patch_size`.

    Args:
        img_size: shorter side of the images in pixels. It only sets the rotary table of the global
            blocks (img_size // patch_size tokens wide).
        patch_size: side of a patch in pixels, the stride of the output.
        in_chans: channels of the images.
        embed_dim: C.
        depth: number of blocks.
        num_heads: heads per block, divides `embed_dim`.
        mlp_ratio: hidden width of the MLP over C; 4 * 2 / 3 for EVA-02.
        qkv_bias: learn a bias of queries and values.
        drop_path_rate: stochastic depth of the last block; rises linearly from 0.
        norm_layer: makes the block norms from a width.
        use_abs_pos: add a learned absolute position embedding.
        pt_hw_seq_len: side in tokens of the grid that the rotary positions are scaled to.
        intp_freq: rotary tables fit the windows; if False both are `pt_hw_seq_len` wide.
        rope: rotate queries and keys by their position.
        window_size: side in tokens of the windows of `window_block_indexes`.
        global_window_size: side in tokens of the windows of the other blocks; 0 = the whole map.
        window_block_indexes: blocks with local windows.
        residual_block_indexes: blocks that end with a convolutional bottleneck.
        use_act_checkpoint: in training, recompute each block in the backward pass instead of
            keeping its activations (True), or only what is not a matrix product or an attention
            ("selective").
        pretrain_img_size: side in pixels of the pre-training images; sets the shape of `pos_embed`.
        pretrain_use_cls_token: `pos_embed` has a leading row for a class token (it is not used).
        subln: normalise the attention heads before the output projection.
        xattn: False is the plain form: zero-padded windows and plain maths. Else the same function
            without the padding and with fused kernels: True chooses the attention kernel, a name
            of `ops.padded_attention.choose_kernel` sets it.
        out_feature: name of the output map.

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
        _check_arguments(
            embed_dim, depth, num_heads, drop_path_rate, window_blocks, residual_block_indexes
        )
        _check_windows(window_size, global_window_size, len(window_blocks), depth)
        _check_choices(use_act_checkpoint, xattn)
        self.patch_size, self.in_chans = patch_size, in_chans
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.use_act_checkpoint = use_act_checkpoint
        # Of the attention in window order; None for the plain form.
        self.kernel = {False: None, True: AUTO}.get(xattn, xattn)  # type: ignore[arg-type]
        self._plans: dict[PlanKey, TokenPlan] = {}
        self._out_features = [out_feature]
        self._out_feature_channels = {out_feature: embed_dim}
        self._out_feature_strides = {out_feature: patch_size}

        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.pos_embed = None
        if use_abs_pos:
            positions = (pretrain_img_size // patch_size) ** 2 + int(pretrain_use_cls_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim))

        local_rope = global_rope = None
        rotary = partial(_rotary, embed_dim // num_heads, pt_hw_seq_len, intp_freq)
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

        self._windows: list[tuple[int, RotaryEmbedding2d | None]] = []  # of each block
        self.blocks = nn.ModuleList()
        for index in range(depth):
            local = index in window_blocks
            windows = window_size if local else global_window_size
            rotary_table = local_rope if local else global_rope
            self._windows.append((windows, rotary_table))
            attn = WindowAttention(embed_dim, num_heads, windows, rotary_table, qkv_bias, subln)
            rate = drop_path_rate * index / max(depth - 1, 1)
            residual = index in residual_block_indexes
            self.blocks.append(Block(attn, embed_dim, mlp_ratio, rate, norm_layer, residual))
        self._init_weights()

    def _init_weights(self) -> None:
        """Truncated normal, std 0.02, for linear layers and positions (Source: EVA-02 detection).

        Convolutions keep PyTorch's default. All of it only matters without pre-trained weights.
        """
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Computes the feature map of normalised images.

        Args:
            x: (B, in_chans, H * patch_size, W * patch_size), float.

        Returns:
            One entry, `out_feature`: (B, C, H, W).

        Raises:
            ValueError: wrong number of channels, a size that is not a multiple of `patch_size`, or
                a size that whole-map attention has no rotary table for.
        """
        map_size = self._map_size(x)
        positions = None
        if self.pos_embed is not None:
            positions = resize_positions(self.pos_embed, map_size, self.pretrain_use_cls_token)
        if self.kernel is None or x.device.type != "cpu" or torch.is_grad_enabled():
            maps = self._embed(x, positions)
        else:
            # One image at a time stays in a CPU's cache; the images do not see each other.
            maps = torch.cat([self._embed(image, positions) for image in x.split(1)])
        return {self._out_features[0]: maps.permute(0, 3, 1, 2)}

    def _embed(self, images: Tensor, positions: Tensor | None) -> Tensor:
        """Images to the last map, (B, H, W, C)."""
        x = self.patch_embed(images)  # (B, H, W, C)
        if positions is not None:
            x = x + positions
        if self.kernel is None:
            for block in self.blocks:
                x = self._run(block, x)
            return x
        plan = self._plan(x.shape[:3], x.device)
        kernel = choose_kernel(
            self.kernel, x.device.type, _product_dtype(x), torch.is_grad_enabled()
        )
        x = x.flatten(0, 2)  # (n, C), row by row
        for block, layout, move in zip(self.blocks, plan.layouts, plan.moves, strict=True):
            x = self._run(block, x if move is None else x[move], layout, kernel)
        return plan.layouts[-1].restore(x)

    def _run(self, block: nn.Module, *arguments: Any) -> Tensor:
        """A block, with the checkpointing of activations that training was asked for."""
        if not self.training or not self.use_act_checkpoint:
            return block(*arguments)
        if self.use_act_checkpoint == SELECTIVE:
            return checkpoint(block, *arguments, use_reentrant=False, context_fn=keep_products)
        return checkpoint(block, *arguments, use_reentrant=False)

    def _plan(self, map_shape: Sequence[int], device: torch.device) -> TokenPlan:
        """The plan for (B, H, W) maps; made once for each of the last sizes."""
        batch, height, width = map_shape
        key = (batch, height, width, device)
        if key not in self._plans:
            while len(self._plans) >= MAX_PLANS:
                self._plans.pop(next(iter(self._plans)))  # the oldest
            self._plans[key] = TokenPlan.make(batch, (height, width), self._windows, device)
        return self._plans[key]

    def _map_size(self, images: Tensor) -> tuple[int, int]:
        """(H, W) in tokens, after checking that the images fit the network."""
        if images.dim() != 4 or images.shape[1] != self.in_chans:
            raise ValueError(
                f"images of shape {tuple(images.shape)} must be (B, {self.in_chans}, height, width)"
            )
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"image height {height} and width {width} must be multiples of "
                f"patch_size={self.patch_size}; resize, crop or pad the images"
            )
        map_size = (height // self.patch_size, width // self.patch_size)
        if self.required_map_size not in (None, map_size):
            raise ValueError(
                f"a map of {map_size[0]}x{map_size[1]} tokens does not fit the whole-map rotary "
                f"table of {self.required_map_size[0]}x{self.required_map_size[1]}; for images "
                f"that are not square set global_window_size = img_size // {self.patch_size}"
            )
        return map_size


def _product_dtype(x: Tensor) -> torch.dtype:
    """Of the matrix products that x goes through."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def resize_positions(pos_embed: Tensor, map_size: tuple[int, int], has_cls_row: bool) -> Tensor:
    """Fits the learned absolute positions to a token map.

    Args:
        pos_embed: (1, S * S + has_cls_row, C), a square grid in row-major order.
        map_size: (H, W) in tokens.
        has_cls_row: drop the first row.

    Returns:
        (1, H, W, C), dtype of `pos_embed`; bicubic and in float32 unless the grid fits as it is.
    """
    table = pos_embed[:, 1:] if has_cls_row else pos_embed
    side = int(table.shape[1] ** 0.5)
    table = table.unflatten(1, (side, side))  # (1, S, S, C)
    if map_size == (side, side):
        return table
    wide = table.permute(0, 3, 1, 2).to(torch.promote_types(table.dtype, torch.float32))
    resized = functional.interpolate(wide, size=map_size, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).to(table.dtype)


def _check_arguments(
    embed_dim: int,
    depth: int,
    num_heads: int,
    drop_path_rate: float,
    window_blocks: frozenset[int],
    residual_blocks: Sequence[int],
) -> None:
    if embed_dim % num_heads:
        raise ValueError(f"num_heads={num_heads} must divide embed_dim={embed_dim}")
    if not 0.0 <= drop_path_rate < 1.0:
        raise ValueError(f"drop_path_rate={drop_path_rate} must be at least 0 and less than 1")
    for name, indexes in (
        ("window_block_indexes", window_blocks),
        ("residual_block_indexes", residual_blocks),
    ):
        outside = sorted(index for index in indexes if not 0 <= index < depth)
        if outside:
            raise ValueError(f"{name} names {outside}, but depth={depth} allows 0 to {depth - 1}")


def _check_choices(use_act_checkpoint: bool | str, xattn: bool | str) -> None:
    if use_act_checkpoint not in (False, True, SELECTIVE):
        raise ValueError(
            f"use_act_checkpoint={use_act_checkpoint!r} must be False, True (whole blocks) or "
            f"{SELECTIVE!r}"
        )
    if xattn not in (False, True, *KERNEL_NAMES):
        raise ValueError(
            f"xattn={xattn!r} must be False (plain maths), True (the quickest kernel at hand) or "
            f"one of {list(KERNEL_NAMES)}"
        )


def _check_windows(window_size: int, global_window_size: int, local: int, depth: int) -> None:
    if local and window_size <= 0:
        raise ValueError(
            f"window_size={window_size} must be positive: window_block_indexes names {local} "
            "blocks with local windows"
        )
    if global_window_size < 0:
        raise ValueError(f"global_window_size={global_window_size} must be 0 (whole map) or more")
    if 0 < local < depth and window_size == global_window_size:
        warnings.warn(
            f"global_window_size={global_window_size} equals window_size: global windows coincide "
            "with local ones and no information crosses their borders",
            stacklevel=3,
        )


def _rotary(
    head_dim: int,
    pretrain_size: int,
    intp_freq: bool,
    window: int,
    grid: int,
    window_name: str,
    grid_name: str,
) -> RotaryEmbedding2d:
    """A table as wide as the window that it rotates (0, the whole map, is checked per image)."""
    if not intp_freq:
        grid, grid_name = pretrain_size, "pt_hw_seq_len (because intp_freq is False)"
    if window not in (0, grid):
        raise ValueError(
            f"{window_name}={window} must equal {grid_name} = {grid}, the side of its rotary "
            f"table; set {window_name}={grid}, or change what it must equal"
        )
    return RotaryEmbedding2d(head_dim, grid, pretrain_size)
