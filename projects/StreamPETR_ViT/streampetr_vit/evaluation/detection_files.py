"""The boxes of a results file of the detection task, as a tracker takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.result_records import check_own_sample, check_records
from streampetr_vit.evaluation.sample_tokens import check_file_samples
from streampetr_vit.structures import GlobalBoxes
from streampetr_vit.texts import shown


def boxes_of_results(
    path: Path, results: Mapping[str, Any], records: FrameRecords
) -> list[GlobalBoxes]:
    """The boxes of each sample, best first, in the order of the records.

    Args:
        path: of the file, for messages.
        results: sample token -> its records, from any detector.
        records: the file must have each of their samples, and no other.

    Raises:
        InputError: the first fault, with the sample and the fix.
    """
    where = f"{path} cannot be tracked: "
    check_file_samples(results, records.tokens, where, verb="name")
    names = records.spec.class_names
    try:
        return [_boxes(results[token], token, names) for token in records.tokens]
    except InputError as error:
        raise InputError(f"{where}{error}") from error


def _boxes(found: Any, token: str, names: Sequence[str]) -> GlobalBoxes:
    check_records(found, names, token=token)
    for box in found:
        check_own_sample(box, token)
        # Detections may lack it; where an object will be next is then not known.
        if any(math.isnan(value) for value in box["velocity"]):
            raise InputError(
                f"sample {token}: a box has velocity {shown(box['velocity'])}; a tracker needs the "
                "velocity of each box, write [0.0, 0.0] where it is not known"
            )
    ordered = sorted(found, key=lambda box: -box["detection_score"])
    return GlobalBoxes(
        sample_token=token,
        center_global_m=_column(ordered, "translation", 3),
        size_wlh_m=_column(ordered, "size", 3),
        rotation_wxyz=_column(ordered, "rotation", 4),
        velocity_global_mps=_column(ordered, "velocity", 2),
        scores=_column(ordered, "detection_score", 1)[:, 0],
        class_names=tuple(box["detection_name"] for box in ordered),
        attribute_names=("",) * len(ordered),  # files of tracks have none
    )


def _column(boxes: Sequence[Mapping[str, Any]], key: str, width: int) -> NDArray[np.float64]:
    return np.array([box[key] for box in boxes], dtype=np.float64).reshape(-1, width)
