"""What the records of a results file may hold, which may come from any detector or stranger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from streampetr_vit.errors import InputError
from streampetr_vit.texts import name_list, nearest, shown

MAX_BOXES_PER_SAMPLE = 500  # of the nuScenes task
_NUMBERS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}  # field -> how many
_LARGEST = 1e8  # metres, or metres per second


def check_records(
    records: object, class_names: Sequence[str], task: str = "detection", token: str = ""
) -> None:
    """Checks the records of one sample.

    Args:
        records: whatever stands in the file.
        class_names: that may be there.
        task: "detection" or "tracking", which name and score of a box are called after.
        token: of the sample, if the records have no other.

    Raises:
        InputError: naming the field, its value and what is allowed.
    """
    if not isinstance(records, Sequence) or isinstance(records, str):
        where = f"results of sample {shown(token)}" if token else "results of a sample"
        raise InputError(f"{where} must be a list of boxes, not {shown(records)}")
    if len(records) > MAX_BOXES_PER_SAMPLE:
        raise InputError(
            f"results{_of_sample(records[0], token)}: {len(records)} boxes; keep the best "
            f"{MAX_BOXES_PER_SAMPLE} of each sample"
        )
    for record in records:
        problem = _problem(record, class_names, task)
        if problem:
            raise InputError(f"results: a box{_of_sample(record, token)} has {problem}")


def check_own_sample(record: Mapping[str, Any], token: str) -> None:
    """Raises InputError unless a box names the sample that it is listed under."""
    named = record.get("sample_token")
    if named != token:
        raise InputError(
            f"sample {token}: a box has sample_token {shown(named)}; it must be the sample's"
        )


def _of_sample(record: Any, token: object = "") -> str:
    token = token or (record.get("sample_token") if isinstance(record, Mapping) else None)
    return f" of sample {shown(token)}" if token else ""


def _problem(record: Any, class_names: Sequence[str], task: str) -> str:
    """What is wrong with a record, or nothing."""
    if not isinstance(record, Mapping):
        return f"the form {shown(record)}; it must be an object with {', '.join(_NUMBERS)} ..."
    name = record.get(f"{task}_name")
    if not isinstance(name, str) or name not in class_names:
        alike = nearest(name, class_names) if isinstance(name, str) else []
        hint = f" (nearest: {name_list(alike)})" if alike else ""
        return f"{task}_name {shown(name)}, which is not among {name_list(class_names)}{hint}"
    for field, count in _NUMBERS.items():
        values = record.get(field)
        if not isinstance(values, Sequence) or len(values) != count:
            return f"{field} {shown(values)}; it must be {count} numbers"
        # The devkit too allows velocities that are not known.
        unknown = field == "velocity" and all(_is_number(v) and math.isnan(v) for v in values)
        if not unknown and not all(_is_number(v) and abs(v) <= _LARGEST for v in values):
            return f"{field} {shown(values)}; it must be finite numbers below {_LARGEST:g}"
    if min(record["size"]) <= 0:
        return f"size {shown(record['size'])}; it must be above 0"
    if not 0.5 < math.hypot(*record["rotation"]) < 2:
        return f"rotation {shown(record['rotation'])}; it must be a unit quaternion (w, x, y, z)"
    score = record.get(f"{task}_score")
    if not _is_number(score) or not math.isfinite(score):
        return f"{task}_score {shown(score)}; it must be a finite number"
    return ""


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    # An int beyond float64 is a number to Python, and an OverflowError to everything else.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)
