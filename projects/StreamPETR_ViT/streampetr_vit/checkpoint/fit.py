"""How the tensors of a file fit a model, and whether they are a whole ViT."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters.detector import why_left_out
from streampetr_vit.modeling.backbone import ViT

Shape = tuple[int, ...]

_VIT = "backbone.net."
_BLOCK = re.compile(r"backbone\.net\.blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class KeyReport:
    """How the tensors of a checkpoint fit a model.

    Attributes:
        matched: names in both, with equal shapes.
        missing: names that only the model has.
        unused: names that only the checkpoint has.
        wrong_shape: (name, shape in the checkpoint, shape in the model).
        left_out: reason -> names that only the checkpoint has, and that no model of ours has.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    wrong_shape: tuple[tuple[str, Shape, Shape], ...]
    left_out: dict[str, list[str]]

    @staticmethod
    def compare(checkpoint: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> KeyReport:
        """Compares two state dicts by name and shape."""
        shapes = [
            (name, tuple(checkpoint[name].shape), tuple(value.shape))
            for name, value in model.items()
            if name in checkpoint
        ]
        left_out: dict[str, list[str]] = {}
        unused: list[str] = []
        for name in checkpoint:
            if name not in model:
                reason = why_left_out(name)
                (unused if reason is None else left_out.setdefault(reason.why, [])).append(name)
        return KeyReport(
            matched=tuple(name for name, theirs, ours in shapes if theirs == ours),
            missing=tuple(name for name in model if name not in checkpoint),
            unused=tuple(unused),
            wrong_shape=tuple(row for row in shapes if row[1] != row[2]),
            left_out=left_out,
        )

    def half_backbone(self) -> str | None:
        """What the model's ViT would miss; None if the checkpoint has all of it, or nothing."""
        # A tensor of another shape is in the file: `wrong_shape` tells of it.
        found = [*self.matched, *(name for name, _, _ in self.wrong_shape)]
        if not any(name.startswith(_VIT) for name in found):
            return None
        return half_backbone(found, (*found, *self.missing))

    def summary(self) -> str:
        """The counts, and what is missing or unused by group, on one line each."""
        lines = [f"{len(self.matched)} tensors loaded"]
        if self.missing:
            lines.append(f"not in the checkpoint, keep their start values: {groups(self.missing)}")
        for why, names in self.left_out.items():
            lines.append(f"left out on purpose ({why}): {groups(names)}")
        if self.unused:
            lines.append(f"in the checkpoint, not used: {groups(self.unused)}")
        return "\n  ".join(lines)

    def wrong_shapes(self) -> str:
        """Which tensors have another shape than the model's."""
        return f"{len(self.wrong_shape)} tensors have another shape: " + "; ".join(
            f"{name} is {theirs} in the file, {ours} in the model"
            for name, theirs, ours in self.wrong_shape[:5]
        )

    def shape_hint(self) -> str:
        """What to change where tensors have another shape."""
        names = {name for name, _, _ in self.wrong_shape}
        positions, patch = f"{_VIT}pos_embed", f"{_VIT}patch_embed.proj.weight"
        if names == {positions}:
            return (
                "The position table has another size: set model.backbone.net.pretrain_img_size to "
                "the side in pixels of the pictures that the file was pre-trained with"
            )
        if names <= {positions, patch}:
            return (
                "The patches have another size: tools/convert_checkpoint.py --from eva02-cls "
                "resizes those of EVA-02's ImageNet files"
            )
        if any(name.startswith("backbone.") for name in names):
            return "Use the backbone settings of the file (embed_dim, depth, mlp_ratio, patch_size)"
        return "Use the model configuration of the file"


def half_backbone(found: Iterable[str], model: Iterable[str] | None = None) -> str | None:
    """What a ViT would miss; None if it is whole.

    Args:
        found: names of a file, in our detector; other names than the ViT's are passed over.
        model: names of the model that takes them. None: a stem, and as many blocks as the file
            counts to, each with what any block of the file has.
    """
    names = {name for name in found if name.startswith(_VIT)}
    wanted = _whole_vit(names) if model is None else {n for n in model if n.startswith(_VIT)}
    absent = sorted(wanted - names)
    if not absent:
        return None
    whose = "a ViT with its blocks" if model is None else "the model's ViT"
    return (
        f"half a backbone: it lacks {len(absent)} of the {len(wanted)} tensors of {whose}, which "
        f"would keep random start values: {examples(absent)}"
    )


def _whole_vit(names: set[str]) -> set[str]:
    """What belongs to a ViT of which a file has these tensors."""
    with torch.device("meta"):
        plainest = ViT(embed_dim=8, depth=1, num_heads=1, qkv_bias=False)
    stem = {name for name in plainest.state_dict() if not name.startswith("blocks.")}
    blocks = [match.groups() for match in map(_BLOCK.fullmatch, names) if match is not None]
    # Options such as biases are of all blocks, but residual convolutions of some.
    in_block = {name for _, name in blocks if not name.startswith("residual.")}
    in_block |= set(plainest.blocks[0].state_dict())
    # A damaged file may name any block: do not list more than it can have.
    depth = 1 + min(max((int(index) for index, _ in blocks), default=0), len(names))
    in_blocks = {f"blocks.{index}.{name}" for index in range(depth) for name in in_block}
    return {_VIT + name for name in stem | in_blocks}


def groups(names: Iterable[str]) -> str:
    """Names counted by their first two parts: "backbone.net (459), head.decoder (120)"."""
    return ", ".join(f"{group} ({count})" for group, count in Counter(map(group_of, names)).items())


def group_of(name: str) -> str:
    """The first two parts of a name, or the one before the last: "backbone.net"."""
    return ".".join(name.split(".")[:-1][:2]) or name


def examples(names: Iterable[str]) -> str:
    """The first three names, for messages."""
    listed = list(map(str, names))
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "") if listed else "none"
