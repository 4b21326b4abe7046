"""Labels of classes that a recipe names."""

from __future__ import annotations

from omegaconf import DictConfig, ListConfig


def labels_of(classes: ListConfig, *names: str) -> ListConfig:
    """Labels of the classes that nuScenes' metric scores as one of `names`; there may be none.

    "${labels:${dataset_spec.classes},barrier}" is [5] of nuScenes, and follows the classes of other
    data sets. `classes` describe those of a `DatasetSpec`, which checks them.
    """
    return ListConfig([label for label, entry in enumerate(classes) if _scored_as(entry) in names])


def _scored_as(entry: object) -> object:
    """A class of the metric; None where the entry names none."""
    if not isinstance(entry, DictConfig):
        return None
    return entry.get("scored_as") or entry.get("name")
