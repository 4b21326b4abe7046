"""Trackers by name or by their rules."""

from __future__ import annotations

from streampetr_vit.errors import InputError
from streampetr_vit.structures import DatasetSpec
from streampetr_vit.texts import shown
from streampetr_vit.tracking.greedy import GreedyRules, GreedyTracker
from streampetr_vit.tracking.lineage import LineageRules, LineageTracker
from streampetr_vit.tracking.tracker import Tracker

TRACKER_NAMES = ("lineage", "greedy")

Rules = GreedyRules | LineageRules


def build_tracker(chosen: str | Rules | Tracker, spec: DatasetSpec) -> Tracker:
    """A tracker.

    Args:
        chosen: one of `TRACKER_NAMES`, the rules of one, or a tracker, which is returned as it is.
        spec: classes of the boxes.

    Raises:
        InputError: there is no such tracker, or its rules name classes that the data set lacks.
    """
    if isinstance(chosen, Tracker):
        return chosen
    if isinstance(chosen, GreedyRules) or chosen == "greedy":
        return GreedyTracker(spec, None if chosen == "greedy" else chosen)
    if isinstance(chosen, LineageRules) or chosen == "lineage":
        return LineageTracker(spec, None if chosen == "lineage" else chosen)
    raise InputError(
        f"tracker is {shown(chosen)}; it must be {' or '.join(TRACKER_NAMES)}, or the rules of "
        "one: GreedyRules(...), LineageRules(...)"
    )
