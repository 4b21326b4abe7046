"""Layer-wise learning-rate decay: the deeper a block of the ViT lies, the smaller its steps.

The parameters of a detector belong to layers. Layer 0 holds the patch embedding and the position
table, layer i + 1 the block i, layer `num_layers` + 1 what else is in the backbone (the pyramid);
heads, decoder and neck are outside. The factor of a layer is
`decay_rate ** (num_layers + 1 - layer)`; pyramid and outside have factors of their own.

Source: StreamPETR's documentation of its ViT-L models has the settings; the rule behind them was
published by the same author in a later project, and equals BEiT's and detectron2's ViTDet but for
the factor of the heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from streampetr_vit.errors import InputError
from streampetr_vit.solver.param_groups import factor_groups, names_below


@dataclass(frozen=True)
class LayerDecay:
    """Factor on the learning rate of a parameter, from its name.

    An instance is a `lr_factor_func` of detectron2's current `get_default_optimizer_params`, and
    of `factor_groups`, which gives the same rates on every version.

    Attributes:
        decay_rate: from one layer to the one below it, in (0, 1].
        head_factor: of everything outside the backbone.
        num_layers: blocks of the ViT.
        pyramid_factor: of the backbone's remaining parameters; None takes `head_factor`, since
            these layers are as new as the heads. The pure rule is 1.
            Quirk: the published code gave them 4 or 1, whichever module came first.
        backbone_prefix: start of the backbone's parameter names.
    """

    decay_rate: float = 0.9
    head_factor: float = 4.0
    num_layers: int = 24
    pyramid_factor: float | None = None
    backbone_prefix: str = "backbone."

    def __post_init__(self) -> None:
        if not 0 < self.decay_rate <= 1:
            raise InputError(f"decay_rate={self.decay_rate}: must be above 0 and at most 1")
        if self.num_layers < 1:
            raise InputError(f"num_layers={self.num_layers}: the number of blocks, 1 or more")
        for name in ("head_factor", "pyramid_factor"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"{name}={value}: must not be negative")

    def layer(self, name: str) -> int | None:
        """The layer that a parameter belongs to, 0 to num_layers + 1; None outside the backbone.

        Raises:
            InputError: the name is of a block that `num_layers` does not have.
        """
        if not name.startswith(self.backbone_prefix):
            return None
        parts = name.split(".")
        if "pos_embed" in parts or "patch_embed" in parts:
            return 0
        block = block_index(name)
        if block is None:
            return self.num_layers + 1
        if block >= self.num_layers:
            raise InputError(
                f"{name} is in block {block}, but num_layers={self.num_layers}: set "
                "optimizer.params.num_layers to the depth of the ViT"
            )
        return block + 1

    def __call__(self, name: str) -> float:
        """The factor for a parameter's full name, such as "backbone.net.blocks.3.mlp.w1.bias"."""
        layer = self.layer(name)
        if layer is None:
            return self.head_factor
        if layer > self.num_layers:
            return self.head_factor if self.pyramid_factor is None else self.pyramid_factor
        return self.decay_rate ** (self.num_layers + 1 - layer)


def layer_decay_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    decay_rate: float = 0.9,
    head_factor: float = 4.0,
    num_layers: int = 24,
    pyramid_factor: float | None = None,
    backbone_prefix: str = "backbone.",
    decay_one_dimensional: bool = False,
    decay_pos_embed: bool = True,
) -> list[dict[str, Any]]:
    """Groups with layer-wise decay for a detector with a ViT.

    Args:
        model: the detector, not wrapped for distribution.
        lr: base learning rate, of a parameter with factor 1.
        weight_decay: decoupled weight decay.
        decay_rate, head_factor, num_layers, pyramid_factor, backbone_prefix: see `LayerDecay`.
        decay_one_dimensional, decay_pos_embed: see `factor_groups`.
            Quirk: the published rule meant to exempt the position table and did not.

    Returns:
        Groups for a `torch.optim` optimiser; 52 for the published ViT-L without a pyramid: 25
        layers and the heads, each with and without weight decay.

    Raises:
        InputError: a setting is out of range, nothing has the prefix, or the ViT has another
            number of blocks.
    """
    factor = LayerDecay(decay_rate, head_factor, num_layers, pyramid_factor, backbone_prefix)
    names = names_below(
        model, backbone_prefix, "layer-wise decay", "or take the groups of configs/common/optim.py"
    )
    depth = 1 + max((b for b in map(block_index, names) if b is not None), default=-1)
    if depth != num_layers:
        raise InputError(
            f"num_layers={num_layers}, but the backbone of {type(model).__name__} has {depth} "
            "blocks (parameters named *.blocks.N.*): set optimizer.params.num_layers to the depth "
            "of the ViT; a backbone without blocks takes the groups of configs/common/optim.py"
        )
    return factor_groups(model, lr, weight_decay, factor, decay_one_dimensional, decay_pos_embed)


def block_index(name: str) -> int | None:
    """N of a parameter named "*.blocks.N.*"; None for others.

    The convolutional bottleneck that ViTDet may put behind a block is new, and not of the block.
    """
    parts = name.split(".")
    if "blocks" not in parts or "residual" in parts:
        return None
    follower = "".join(parts[parts.index("blocks") + 1 :][:1])
    return int(follower) if follower.isdigit() else None
