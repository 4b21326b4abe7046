"""How the tensors of a file fit a model, and whether they are a whole ViT."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters.known_files import why_left_out
from streampetr_vit.checkpoint.adapters.renaming import examples
from streampetr_vit.modeling.backbone import ViT

Shape = tuple[int, ...]

_VIT = "backbone.net."
_BLOCK = re.compile(r"backbone\.net\.blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class KeyReport:
    """How the tensors of a checkpoint fit a model, by name and shape."""

    matched: tuple[str, ...]  # names in both, with equal shapes
    missing: tuple[str, ...]  # names that only the model has
    unused: tuple[str, ...]  # names that only the checkpoint has
    wrong_shape: tuple[tuple[str, Shape, Shape], ...]  # name, in the checkpoint, in the model
    left_out: dict[str, list[str]]  # reason -> names of the checkpoint that no model of ours has

    @staticmethod
    def compare(checkpoint: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> KeyReport:
        """Compares two state dicts."""
        shapes = [
            (name, tuple(checkpoint[name].shape), tuple(value.shape))
            for name, value in model.items()
            if name in checkpoint
        ]
        by_reason: dict[str, list[str]] = {}
        for name in checkpoint:
            if name not in model:
                by_reason.setdefault(why_left_out(name), []).append(name)
        return KeyReport(
            matched=tuple(name for name, theirs, ours in shapes if theirs == ours),
            missing=tuple(name for name in model if name not in checkpoint),
            unused=tuple(by_reason.pop("", ())),  # without a reason
            wrong_shape=tuple(row for row in shapes if row[1] != row[2]),
            left_out=by_reason,
        )

    def half_backbone(self) -> str | None:
        """What the model's ViT would miss; None if the checkpoint has all of it, or nothing."""
        # A tensor of another shape is in the file: `wrong_shape` tells of it.
        in_file = (*self.matched, *(name for name, _, _ in self.wrong_shape))
        found = {name for name in in_file if name.startswith(_VIT)}
        absent = {name for name in self.missing if name.startswith(_VIT)}
        return _half_backbone("the model's ViT", found, found | absent) if found else None

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


def half_backbone(found: Iterable[str]) -> str | None:
    """What the ViT of a file would miss, by its names in our detector; None if it is whole.

    A whole ViT has a stem, and as many blocks as the file counts to, each with what any has.
    """
    names = {name for name in found if name.startswith(_VIT)}
    with torch.device("meta"):
        plainest = ViT(embed_dim=8, depth=1, num_heads=1, qkv_bias=False)
    stem = {name for name in plainest.state_dict() if not name.startswith("blocks.")}
    blocks = [match.groups() for match in map(_BLOCK.fullmatch, names) if match is not None]
    # Options such as biases are of all blocks, but residual convolutions of some.
    in_block = {name for _, name in blocks if not name.startswith("residual.")}
    in_block |= plainest.blocks[0].state_dict().keys()
    # A damaged file may name any block: do not list more than it can have.
    depth = 1 + min(max((int(index) for index, _ in blocks), default=0), len(names))
    in_blocks = {f"blocks.{index}.{name}" for index in range(depth) for name in in_block}
    return _half_backbone("a ViT with its blocks", names, {_VIT + n for n in stem | in_blocks})


def _half_backbone(whose: str, found: set[str], wanted: set[str]) -> str | None:
    absent = sorted(wanted - found)
    if not absent:
        return None
    return (
        f"half a backbone: it lacks {len(absent)} of the {len(wanted)} tensors of {whose}, which "
        f"would keep random start values: {examples(absent)}"
    )


def groups(names: Iterable[str]) -> str:
    """Names counted by their first two parts: "backbone.net (459), head.decoder (120)"."""
    return ", ".join(f"{group} ({count})" for group, count in Counter(map(group_of, names)).items())


def group_of(name: str) -> str:
    """The first two parts of a name, or the one before the last: "backbone.net"."""
    return ".".join(name.split(".")[:-1][:2]) or name
