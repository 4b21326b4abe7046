"""How the classes of a data set are scored by nuScenes' metric, which has ten of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.errors import InputError
from streampetr_vit.structures import DatasetSpec

# The metric ignores cycles inside a bicycle rack, which it finds by this category.
BIKE_RACK = "static_object.bicycle_rack"
# True boxes may also have the last one, which no detection gets.
OFFICIAL_ATTRIBUTES = frozenset(
    {name for entry in NUSCENES.classes for name in entry.attributes if name}
    | {"pedestrian.sitting_lying_down"}
)


@dataclass(frozen=True)
class Scoring:
    """Which class of the metric each class counts as, by name.

    Attributes:
        names: class of the data set -> the metric's class that it counts as.
        left_out: classes that the metric does not know.
        categories: category of the tables -> one that the metric takes for the same class.
        is_official: the data set has the metric's own classes, categories and lidar.
    """

    names: Mapping[str, str]
    left_out: tuple[str, ...]
    categories: Mapping[str, str]
    is_official: bool

    @staticmethod
    def of(spec: DatasetSpec) -> Scoring:
        """The scoring of a data set.

        Raises:
            InputError: a class is to be scored as one that the metric does not have, or takes the
                category of bicycle racks.
        """
        # The devkit maps each of these categories to its class, so that one of them is enough.
        official = {entry.name: entry.categories[0] for entry in NUSCENES.classes}
        names: dict[str, str] = {}
        categories: dict[str, str] = {}
        left_out = []
        for entry in spec.classes:
            scored_as = entry.name if entry.scored_as is None else entry.scored_as
            if scored_as in official:
                if BIKE_RACK in entry.categories:
                    raise InputError(
                        f"dataset_spec class {entry.name!r} takes {BIKE_RACK}, in which the metric "
                        "passes over cycles: it cannot be scored; take that category out, or "
                        "name the class otherwise and leave scored_as out"
                    )
                names[entry.name] = scored_as
                categories |= dict.fromkeys(entry.categories, official[scored_as])
            elif entry.scored_as is None:  # no scored_as was given, so this is no error
                left_out.append(entry.name)
            else:
                raise InputError(
                    f"dataset_spec class {entry.name!r}: scored_as={entry.scored_as!r} is no class "
                    f"of the nuScenes metric; it has {', '.join(official)}"
                )
        is_official = _facts(spec) == _facts(NUSCENES)
        return Scoring(names, tuple(left_out), categories, is_official)

    def scored(self, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The records of a results file that are scored, under the metric's names."""
        kept = [dict(record) for record in records if record["detection_name"] in self.names]
        for record in kept:
            record["detection_name"] = self.names[record["detection_name"]]
            if record["attribute_name"] not in OFFICIAL_ATTRIBUTES:
                record["attribute_name"] = ""  # the devkit refuses a name that it does not know
        return kept


def _facts(spec: DatasetSpec) -> tuple[object, ...]:
    """What the devkit takes for granted. The order of the classes is not part of it."""
    return spec.lidar, {
        entry.name: (set(entry.categories), entry.attributes, entry.scored_as or entry.name)
        for entry in spec.classes
    }
