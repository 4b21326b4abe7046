"""The tables of a data set as the devkit's evaluations read them.

The devkit is imported inside the functions: it costs seconds and pulls in matplotlib.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.scoring import BIKE_RACK, OFFICIAL_ATTRIBUTES, Scoring
from streampetr_vit.progress import progress
from streampetr_vit.structures import DatasetSpec

_LEFT_OUT = "left out"  # no category of the devkit: its loaders pass it over


@contextmanager
def devkit_refusals(path: Path, again: str) -> Iterator[None]:
    """Says in one line why the devkit cannot score a complete results file.

    Args:
        path: the file.
        again: what scores it later.
    """
    try:
        yield
    except Exception as error:
        # The devkit refuses its input with these, the last one bare.
        if not isinstance(error, (AssertionError, LookupError)) and type(error) is not Exception:
            raise
        raise InputError(
            f"the nuScenes devkit cannot score {path} ({type(error).__name__}: {error}). The file "
            f"is complete; mend the tables, then score it with {again} (docs/evaluate.md)"
        ) from error


def devkit_tables(records: FrameRecords, scoring: Scoring) -> Any:
    """The devkit's `NuScenes` of a data set, own classes under official categories."""
    os.environ.setdefault("MPLBACKEND", "Agg")  # the devkit imports pyplot
    from nuscenes import NuScenes

    nusc = NuScenes(records.version, str(records.root), verbose=False)
    if not scoring.is_official:
        _translate(nusc, records.spec, scoring)
    return nusc


def true_boxes(nusc: Any, tokens: Sequence[str], kind: type) -> Any:
    """The devkit's `EvalBoxes` of the annotations of samples; `kind` is its class of a box."""
    from nuscenes.eval.common import loaders

    # The devkit shows a bar whatever it is told.
    shown = SimpleNamespace(tqdm=lambda items, **_: progress(items, "true boxes", "samples"))
    with patch.object(loaders, "tqdm", shown):
        return loaders.load_gt_of_sample_tokens(nusc, tokens, kind)


def in_scope(nusc: Any, boxes: Any, class_range: Mapping[str, float]) -> Any:
    """Those of the devkit's `EvalBoxes` that it scores: near, with points, in no bike rack."""
    from nuscenes.eval.common import loaders

    if not boxes.all:  # the devkit's filter cannot tell the type of no boxes
        return boxes
    return loaders.filter_eval_boxes(nusc, loaders.add_center_dist(nusc, boxes), class_range)


def _translate(nusc: Any, spec: DatasetSpec, scoring: Scoring) -> None:
    """Gives the tables in memory the names that the devkit's loaders know."""
    # The loaders find the class of a box by its category, and take one attribute at most.
    known = {row["token"] for row in nusc.attribute if row["name"] in OFFICIAL_ATTRIBUTES}
    for annotation in nusc.sample_annotation:
        category = annotation["category_name"]
        if category != BIKE_RACK:
            annotation["category_name"] = scoring.categories.get(category, _LEFT_OUT)
        attributes = [token for token in annotation["attribute_tokens"] if token in known]
        annotation["attribute_tokens"] = attributes[:1]
    # They read the vehicle's pose from the record of LIDAR_TOP, and nothing else of it. The camera
    # nearest in time stands for a lidar that is not there, as in `data.nuscenes.sensors`.
    channels = spec.cameras if spec.lidar is None else (spec.lidar,)
    for sample in nusc.sample:
        tokens = [sample["data"][channel] for channel in channels]
        delays = [nusc.get("sample_data", t)["timestamp"] - sample["timestamp"] for t in tokens]
        sample["data"]["LIDAR_TOP"] = tokens[min(range(len(tokens)), key=lambda k: abs(delays[k]))]
