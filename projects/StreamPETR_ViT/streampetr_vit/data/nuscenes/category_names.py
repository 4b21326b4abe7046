"""Categories of the tables against those of a `DatasetSpec`: names that do not meet are said."""

from __future__ import annotations

import logging
from pathlib import Path

from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError
from streampetr_vit.logs import log_once
from streampetr_vit.texts import name_list, nearest

_LOG = logging.getLogger(__name__)


def check_categories(records: FrameRecords, folder: Path) -> None:
    """Says which classes can have no box in a data set, and which categories look misspelt.

    Raises:
        InputError: the data set has no category of any class.
    """
    if not records.has_annotations:
        return
    path, names, classes = folder / "category.json", records.category_names, records.spec.classes
    absent = [entry for entry in classes if set(names).isdisjoint(entry.categories)]
    free = sorted(set(names) - records.spec.label_of_category.keys())
    if len(absent) == len(classes):
        raise InputError(
            f"{path} has no category of dataset_spec.classes: it has {name_list(sorted(names))}; "
            f"the classes take {name_list(records.spec.label_of_category)}. Name the categories of "
            "this data set in dataset_spec.classes"
        )
    for entry in classes:
        if entry in absent:
            alike = dict.fromkeys(n for c in entry.categories for n in nearest(c, free))
            hint = f"; nearest there: {name_list(alike)}" if alike else ""
            message = f"{path} has no category of class {entry.name!r} "
            message += f"({', '.join(entry.categories)}): there will be no such box{hint}"
            log_once(_LOG, logging.WARNING, message)
            continue
        for category in sorted(set(entry.categories) - set(names)):
            # A class may take categories that a data set lacks; a misspelt one is worth a word.
            alike_free = nearest(category, free, likeness=0.85)
            if alike_free:
                message = f"{path} has no category {category!r}, which class {entry.name!r} takes, "
                message += f"but {name_list(alike_free)}, which no class takes. Is it misspelt?"
                log_once(_LOG, logging.WARNING, message)
