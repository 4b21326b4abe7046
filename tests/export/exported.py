"""Exports of the tiny detectors, for tests of what reads or checks them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nuscenes_export import described
from tiny_detector import HEIGHT, WIDTH

from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import Interface
from streampetr_vit.export.writing import export_graphs
from streampetr_vit.modeling.detector import StreamPETR


def tiny_description(detector: StreamPETR, **changes: Any) -> Description:
    """Of a detector of `tiny_detector`; `changes` replace attributes."""
    head = detector.head
    values = dict(
        recipe="tiny",
        detector=type(head).__name__,
        image_size=(HEIGHT, WIDTH),
        max_detections=head.max_detections,
        num_queries=head.num_queries,
        num_remembered=head.num_remembered,
    )
    return replace(described(), **(values | changes))


def export_tiny(detector: StreamPETR, folder: Path, **changes: Any) -> Interface:
    """Writes its three graphs; `changes` replace attributes of the description."""
    folder.mkdir(parents=True, exist_ok=True)
    return export_graphs(detector, tiny_description(detector, **changes), folder)
