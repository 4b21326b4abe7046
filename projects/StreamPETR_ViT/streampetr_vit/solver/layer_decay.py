"""Layer-wise learning-rate decay: the nearer a ViT block is to the image, the smaller its rate.

Source: StreamPETR's documentation of its ViT-L models has the settings. Its author published the
rule in a later project; it equals that of BEiT and of detectron2's ViTDet, except for the heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from streampetr_vit.errors import InputError
from streampetr_vit.solver.param_groups import factor_groups, names_below


@dataclass(frozen=True)
class LayerDecay:
    """Factor on the learning rate of a parameter, from its name: an `LrFactor`.

    Attributes:
        decay_rate: factor from one layer to the one before it, in (0, 1].
        head_factor: factor of everything outside the backbone.
        num_layers: blocks of the ViT.
        pyramid_factor: factor of the backbone's remaining parameters; None takes `head_factor`. The
            pure rule is 1.
            Quirk: the published code gave them 4 or 1, depending on which module came first.
        backbone_prefix: start of the backbone's parameter names.

    Raises:
        InputError: a value is out of range.
    """

    decay_rate: float = 0.9
    head_factor: float = 4.0
    num_layers: int = 24
    pyramid_factor: float | None = None
    backbone_prefix: str = "backbone."

    def __post_init__(self) -> None:
        if not 0 < self.decay_rate <= 1:
            raise InputError(
                f"optimizer.params.decay_rate={self.decay_rate}: must be above 0 and at most 1"
            )
        if self.num_layers < 1:
            raise InputError(
                f"optimizer.params.num_layers={self.num_layers}: set it to the number of the ViT's "
                "blocks, 1 or more"
            )
        for name in ("head_factor", "pyramid_factor"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"optimizer.params.{name}={value}: set it to 0 or more")

    def layer(self, name: str) -> int | None:
        """The layer that a parameter belongs to.

        Returns:
            0 for the patch embedding and the position table, i + 1 for block i, num_layers + 1 for
            the rest of the backbone (the pyramid), None outside it (heads, decoder, neck).

        Raises:
            InputError: the name belongs to a block that `num_layers` does not have.
        """
        if not name.startswith(self.backbone_prefix):
            return None
        parts = name.split(".")  # whole parts, so that "rel_pos_embed" is no position table
        if "pos_embed" in parts or "patch_embed" in parts:
            return 0
        block = block_index(name)
        if block is None:
            return self.num_layers + 1  # the pyramid, and the ViT's last norm if it has one
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
            # By default the pyramid trains like the heads: it is as new as they are.
            return self.head_factor if self.pyramid_factor is None else self.pyramid_factor
        # The last block has the factor decay_rate, the patch embedding decay_rate ** (blocks + 1).
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
        decay_rate, head_factor, num_layers, pyramid_factor, backbone_prefix: see `LayerDecay`.
        model, lr, weight_decay, decay_one_dimensional, decay_pos_embed: see `factor_groups`.
            Quirk: the published rule meant to exempt the position table and did not.

    Returns:
        Groups with "lr" and "weight_decay". The published ViT-L without a pyramid has 52: 25 layers
        and the heads, each with and without weight decay.

    Raises:
        InputError: a setting is out of range, no parameter has the prefix, or the ViT has another
            number of blocks.
    """
    factor = LayerDecay(decay_rate, head_factor, num_layers, pyramid_factor, backbone_prefix)
    names = names_below(
        model, backbone_prefix, "layer-wise decay", "or take the groups of configs/common/optim.py"
    )
    # A wrong number of blocks would shift all rates without an error.
    depth = 1 + max((b for b in map(block_index, names) if b is not None), default=-1)
    if depth != num_layers:
        raise InputError(
            f"num_layers={num_layers}, but the backbone of {type(model).__name__} has {depth} "
            "blocks (parameters named *.blocks.N.*): set optimizer.params.num_layers to the depth "
            "of the ViT; for a backbone without blocks use the groups of configs/common/optim.py"
        )
    return factor_groups(model, lr, weight_decay, factor, decay_one_dimensional, decay_pos_embed)


def block_index(name: str) -> int | None:
    """N of a parameter named "*.blocks.N.*"; None for others."""
    parts = name.split(".")
    # "residual": the convolutions that ViTDet may put behind a block are new, unlike the block.
    if "blocks" not in parts or "residual" in parts:
        return None
    follower = "".join(parts[parts.index("blocks") + 1 :][:1])  # "" if "blocks" is the last part
    return int(follower) if follower.isdigit() else None
