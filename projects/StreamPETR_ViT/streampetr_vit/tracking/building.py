"""Trackers by name or by their rules."""

from __future__ import annotations

from typing import Any

from streampetr_vit.structures import DatasetSpec
from streampetr_vit.tracking.tracker import Tracker

Rules = Any


def build_tracker(chosen: str | Rules, spec: DatasetSpec) -> Tracker:
    if isinstance(chosen, Tracker):
        return chosen
    raise NotImplementedError(chosen, spec)
