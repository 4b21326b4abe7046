"""Which classes are tracked, and as what. Names decide."""

from __future__ import annotations

from streampetr_vit.structures import DatasetSpec

# Of the nuScenes tracking task. Source: the devkit's tracking_nips_2019.
OFFICIAL_NAMES = ("bicycle", "bus", "car", "motorcycle", "pedestrian", "trailer", "truck")
# Classes of the detection task that the tracking task leaves out.
UNTRACKED_NAMES = ("barrier", "construction_vehicle", "traffic_cone")


def tracked_kinds(spec: DatasetSpec) -> dict[str, str]:
    """Class name -> the nuScenes class that it is tracked as, for those that are tracked.

    Own classes that nuScenes does not know are tracked under their own name.
    """
    kinds = {entry.name: entry.scored_as or entry.name for entry in spec.classes}
    return {name: kind for name, kind in kinds.items() if kind not in UNTRACKED_NAMES}
