"""Whether the tensors of a file make a whole ViT, where no model says how large it is."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

import torch

from streampetr_vit.checkpoint.key_report import examples
from streampetr_vit.errors import CheckpointError
from streampetr_vit.modeling.backbone import ViT

_VIT = "backbone.net."
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def check_backbone(names: Iterable[str], path: str) -> None:
    """Raises CheckpointError unless there is a stem, and every block is whole.

    Blocks count from 0 without a gap. Each needs what every block of `ViT` has, and what any other
    block of the file has, but for residual convolutions.

    Args:
        names: in our detector; other names than the ViT's are passed over.
        path: the file, for messages.
    """
    found = {name.removeprefix(_VIT) for name in names if name.startswith(_VIT)}
    stem, in_block = _parts(_plainest())
    blocks = [match for match in map(_BLOCK.fullmatch, sorted(found)) if match]
    in_block |= {match[2] for match in blocks if not match[2].startswith("residual.")}
    depth = 1 + max((int(match[1]) for match in blocks), default=0)
    if depth > len(found):  # no file has that many; do not list what it lacks
        raise CheckpointError(f"{path} is no EVA-02 backbone: it names a block {depth - 1}")
    wanted = stem | {f"blocks.{index}.{name}" for index in range(depth) for name in in_block}
    absent = sorted(wanted - found)
    if absent:
        raise CheckpointError(
            f"{path} is no whole EVA-02 backbone: {len(absent)} of {len(wanted)} tensors of its "
            f"{depth} blocks and stem are not in it: {examples(absent)}. It is of another ViT, or "
            "incomplete: take the file of EVA-02's authors"
        )


def _parts(names: Iterable[str]) -> tuple[set[str], set[str]]:
    """Names outside the blocks, and names inside one."""
    matches = {name: _BLOCK.fullmatch(name) for name in names}
    return (
        {name for name, match in matches.items() if match is None},
        {match[2] for match in matches.values() if match is not None},
    )


@functools.cache
def _plainest() -> tuple[str, ...]:
    """What every ViT of ours has: a stem and a block without options."""
    with torch.device("meta"):
        return tuple(ViT(embed_dim=8, depth=1, num_heads=1, qkv_bias=False).state_dict())
