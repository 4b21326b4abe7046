"""Records of a results file of the nuScenes tracking task.

Source: the submission format of the nuScenes tracking task (JSON).
"""

from __future__ import annotations

from typing import Any

from streampetr_vit.evaluation.result_format import sample_line
from streampetr_vit.evaluation.result_records import MAX_BOXES_PER_SAMPLE
from streampetr_vit.structures import DatasetSpec, GlobalBoxes
from streampetr_vit.structures.tracks import NO_ID, Tracks
from streampetr_vit.tracking.classes import OFFICIAL_NAMES, tracked_kinds


def tracking_line(boxes: GlobalBoxes, tracks: Tracks, spec: DatasetSpec) -> str:
    """What a results file says about a sample, see `tracking_records`."""
    return sample_line(boxes.sample_token, tracking_records(boxes, tracks, spec))


def tracking_records(boxes: GlobalBoxes, tracks: Tracks, spec: DatasetSpec) -> list[dict[str, Any]]:
    """The boxes of a sample that have ids and are of a class of the task.

    Args:
        boxes: best first.
        tracks: of these boxes.
        spec: their classes.

    Returns:
        At most `MAX_BOXES_PER_SAMPLE` dicts of plain Python values, in the order of the boxes.
    """
    kinds = tracked_kinds(spec)
    records = []
    for index, (name, track) in enumerate(zip(boxes.class_names, tracks.ids, strict=True)):
        if track == NO_ID or kinds.get(name) not in OFFICIAL_NAMES:
            continue
        records.append(
            {
                "sample_token": boxes.sample_token,
                "translation": boxes.center_global_m[index].tolist(),
                "size": boxes.size_wlh_m[index].tolist(),
                "rotation": boxes.rotation_wxyz[index].tolist(),
                "velocity": boxes.velocity_global_mps[index].tolist(),
                "tracking_id": str(track),
                "tracking_name": kinds[name],
                "tracking_score": float(tracks.scores[index]),
            }
        )
    return records[:MAX_BOXES_PER_SAMPLE]
