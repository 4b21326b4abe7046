"""The boxes of a results file, checked, as the devkit's evaluation takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.result_records import MAX_BOXES_PER_SAMPLE
from streampetr_vit.evaluation.scorable_files import read_scorable
from streampetr_vit.texts import shown

_OWN_CLASSES = (
    "; the file must have the metric's own names: of own classes the evaluator writes "
    "results_scored.json, which has them"
)


def devkit_boxes(path: Path, tokens: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The devkit's `EvalBoxes` of a results file, and its "meta".

    Args:
        path: a nuScenes results file.
        tokens: of the samples that are evaluated; the file must have each, and no other.

    Raises:
        MissingFileError: no such file.
        InputError: the first fault, with the sample.
    """
    from nuscenes.eval.common.data_classes import EvalBoxes

    results, meta = read_scorable(path, tokens)
    boxes = EvalBoxes()
    for token in tokens:
        boxes.add_boxes(token, _of_sample(results[token], token, path))
    return boxes, meta


def _of_sample(records: Any, token: str, path: Path) -> list[Any]:
    """The devkit's boxes of one sample."""
    from nuscenes.eval.detection.data_classes import DetectionBox

    where = f"{path} cannot be scored: sample {shown(token)}"
    if not isinstance(records, list):
        raise InputError(f"{where} has {shown(records)}; it must be a list of boxes")
    if len(records) > MAX_BOXES_PER_SAMPLE:
        raise InputError(
            f"{where} has {len(records)} boxes; keep the best {MAX_BOXES_PER_SAMPLE} of each sample"
        )
    boxes = []
    for record in records:
        try:
            box = DetectionBox.deserialize(record)
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{where}: {_reason(record, error)}") from error
        # The devkit would look for the true boxes of the other sample.
        if box.sample_token != token:
            named = shown(box.sample_token)
            raise InputError(f"{where}: a box has sample_token {named}; it must be the sample's")
        boxes.append(box)
    return boxes


def _reason(record: Any, error: Exception) -> str:
    """Why the devkit does not take a record."""
    if not isinstance(record, Mapping):
        return f"{shown(record)} is no box; it must be an object"
    if isinstance(error, KeyError):
        return f"a box has no {error.args[0]}; add it"
    if not isinstance(error, AssertionError):
        return f"a box has a value of a wrong kind ({error}): {shown(record, 200)}"
    text = str(error).removeprefix("Error: ").rstrip(".!")
    return text + (_OWN_CLASSES if text.startswith("Unknown ") else "")
