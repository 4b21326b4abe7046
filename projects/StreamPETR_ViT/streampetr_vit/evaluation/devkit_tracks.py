"""The boxes of a results file of the tracking task, checked, as the devkit's evaluation takes them.

The devkit asserts a part of this, one box and one value at a time, and says nothing of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.result_records import check_own_sample, check_records
from streampetr_vit.evaluation.scorable_files import read_scorable
from streampetr_vit.texts import shown

Results = Mapping[str, Sequence[Mapping[str, Any]]]


def read_tracks(
    path: str | Path, records: FrameRecords, names: Sequence[str]
) -> tuple[Results, Mapping[str, Any]]:
    """The results of a tracking file and its "meta", after every check.

    Args:
        path: the file.
        records: of the samples that are evaluated; the file must have each, and no other.
        names: official classes that are scored.

    Raises:
        MissingFileError: no such file.
        InputError: the first fault, with the sample and the fix.
    """
    results, meta = read_scorable(path, records.tokens)
    try:
        _check_scenes(results, records, names)
    except InputError as error:
        raise InputError(f"{path} cannot be scored: {error}") from error
    return results, meta


def is_tracking(results: Mapping[str, Any]) -> bool:
    """Whether the first box of a results file is one of the tracking task."""
    for records in results.values():
        if isinstance(records, list) and records:
            return isinstance(records[0], Mapping) and "tracking_name" in records[0]
    return False


def devkit_tracks(results: Results, tokens: Sequence[str]) -> Any:
    """The devkit's `EvalBoxes` of checked results."""
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.tracking.data_classes import TrackingBox

    boxes = EvalBoxes()
    for token in tokens:
        boxes.add_boxes(token, [TrackingBox.deserialize(_plain(box)) for box in results[token]])
    return boxes


def _plain(box: Mapping[str, Any]) -> dict[str, Any]:
    return {**box, "tracking_id": str(box["tracking_id"])}


def _check_scenes(results: Results, records: FrameRecords, names: Sequence[str]) -> None:
    """Checks every box, and that an id stands for one object of one class in a scene."""
    scene, known = None, {}  # id -> (class, sample that had it first)
    for record in records:
        if record.scene_token != scene:
            scene, known = record.scene_token, {}
        token = record.token
        _check_sample(results[token], token, names)
        for box in results[token]:
            id_, name = str(box["tracking_id"]), box["tracking_name"]
            first, at = known.setdefault(id_, (name, token))
            if name != first:
                raise InputError(
                    f"sample {token}: id {shown(id_)} is a {name}, and in sample {at} of the same "
                    f"scene a {first}: an id must keep its class; give another object another id"
                )


def _check_sample(boxes: Any, token: str, names: Sequence[str]) -> None:
    first = boxes[0] if isinstance(boxes, list) and boxes else None
    if isinstance(first, Mapping) and {"tracking_name", "detection_name"} & set(first) == {
        "detection_name"
    }:
        raise InputError(
            f"sample {token} has boxes of the detection task, without ids: tools/track.py makes a "
            "tracking file of it"
        )
    check_records(boxes, names, "tracking", token)
    ids = set()
    for box in boxes:
        check_own_sample(box, token)
        id_ = box.get("tracking_id")
        if isinstance(id_, bool) or not isinstance(id_, (str, int)) or id_ == "":
            raise InputError(
                f"sample {token}: a box has tracking_id {shown(id_)}; it must be a text or a whole "
                "number"
            )
        if str(id_) in ids:
            raise InputError(
                f"sample {token}: two boxes have the id {shown(id_)}; an id is of one object"
            )
        ids.add(str(id_))
