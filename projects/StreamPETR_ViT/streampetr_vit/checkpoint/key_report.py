"""What of a checkpoint a model took, said by the model itself.

`report_loading` makes a model speak whatever loads it, detectron2's own checkpointer included: that
one loads by name, and a file of which no name fits, or half of the ViT's, leaves the rest at its
random start with a warning in the log. Here both are errors.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from streampetr_vit.errors import CheckpointError

logger = logging.getLogger(__name__)

_VIT = "backbone.net."
_ROTARY_PARTS = frozenset(("rope", "rope_win", "rope_glb"))


def is_rotary_table(name: str) -> bool:
    """Whether a foreign tensor is a rotary table, which no module of ours stores."""
    return not _ROTARY_PARTS.isdisjoint(name.split("."))


def why_left_out(name: str) -> str | None:
    """Why a tensor of EVA-02's detection files has no place in a detector; None if it has one.

    Args:
        name: as in the file.
    """
    if is_rotary_table(name):
        return "rotary tables, computed for the image size"
    if name.startswith(("proposal_generator.", "roi_heads.")):
        return "proposal, box and mask heads of EVA-02 detection"
    if name in ("pixel_mean", "pixel_std"):
        return "pixel mean and deviation, of the configuration"
    return None


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
    wrong_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def compare(checkpoint: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> KeyReport:
        """Compares two state dicts by name and shape."""
        common = [name for name in model if name in checkpoint]
        shapes = [
            (name, tuple(checkpoint[name].shape), tuple(model[name].shape)) for name in common
        ]
        left_out: dict[str, list[str]] = {}
        unused: list[str] = []
        for name in checkpoint:
            if name not in model:
                why = why_left_out(name)
                (unused if why is None else left_out.setdefault(why, [])).append(name)
        return KeyReport(
            matched=tuple(name for name, theirs, ours in shapes if theirs == ours),
            missing=tuple(name for name in model if name not in checkpoint),
            unused=tuple(unused),
            wrong_shape=tuple(row for row in shapes if row[1] != row[2]),
            left_out=left_out,
        )

    def half_backbone(self) -> str | None:
        """What the ViT would miss; None if the checkpoint has all of its names, or none of them."""
        found = (*self.matched, *(name for name, _, _ in self.wrong_shape))
        count = sum(name.startswith(_VIT) for name in found)
        absent = [name for name in self.missing if name.startswith(_VIT)]
        if not count or not absent:
            return None
        return (
            f"half a backbone: of the {count + len(absent)} tensors of the model's ViT the "
            f"checkpoint has {count}; the others would keep random start values: {examples(absent)}"
        )

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


def report_loading(model: nn.Module) -> None:
    """Makes `model.load_state_dict` log what fits, and fail if nothing or half a ViT does.

    What a file holds beside weights for this model (see `why_left_out`) is not an unexpected key
    any more. A hook of torch: nothing is replaced, and copies of the model keep it.

    Args:
        model: a whole model, not a part of one. Afterwards it has `reports_loading = True`.
    """
    model.register_load_state_dict_pre_hook(_report)
    model.reports_loading = True  # type: ignore[assignment]


@contextmanager
def partial_loading(model: nn.Module) -> Iterator[None]:
    """Inside it a model of `report_loading` takes half a ViT without complaint.

    For who has checked the checkpoint already, or wants it so.
    """
    model.takes_half_a_backbone = True  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.takes_half_a_backbone


def _report(model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """The hook. `state_dict` is torch's own copy: removing entries is what hooks may do."""
    relative = {
        name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)
    }
    report = KeyReport.compare(relative, model.state_dict())
    if not prefix and not report.matched and not report.wrong_shape:
        raise CheckpointError(
            f"no tensor of the checkpoint fits the model. Names in the checkpoint: "
            f"{examples(relative)}; in the model: {examples(report.missing)}. For weights of "
            "another project run tools/convert_checkpoint.py first"
        )
    half = None if prefix else report.half_backbone()
    if half is not None and not getattr(model, "takes_half_a_backbone", False):
        raise CheckpointError(
            f"{half}. Not used of the checkpoint: {examples(report.unused)}. It is of another ViT, "
            "or incomplete. (To load it all the same: modeling.key_report.partial_loading.)"
        )
    for names in report.left_out.values():
        for name in names:
            del state_dict[prefix + name]
    level = logging.WARNING if report.missing or report.unused else logging.INFO
    logger.log(level, "checkpoint: %s", report.summary())
