"""The frames that a report draws: which of them, and detections of which score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.evaluation.result_format import detections_from_records
from streampetr_vit.report.page import PictureGroup
from streampetr_vit.visualization.drawing import Image
from streampetr_vit.visualization.frame_picture import draw_record, visible_truth

# Sample token -> records of the results file.
Results = Mapping[str, Sequence[Mapping[str, Any]]]


def draw_groups(
    records: FrameRecords,
    results: Results,
    score_threshold: float | None,
    range_m: float,
    consecutive: int = 4,
    single: int = 3,
) -> list[PictureGroup]:
    """Draws consecutive frames of the first scene, and single frames of others.

    Args:
        records: of the evaluated data set.
        results: its detections.
        score_threshold: weaker detections are not drawn; None takes `balanced_threshold`.
        range_m: half the width of the views from above.
        consecutive, single: how many frames of either kind at most.

    Returns:
        The groups that have a picture.
    """
    chosen = _chosen_frames(records.scene_lengths, consecutive, single)
    row, alone = ([records[index] for index in indices] for indices in chosen)
    found = {
        record.token: detections_from_records(
            results.get(record.token, ()),
            record.lidar_to_ego,
            record.ego_to_global,
            records.spec.class_names,
        )
        for record in (*row, *alone)
    }
    if score_threshold is None:
        score_threshold = balanced_threshold(
            [score for detections in found.values() for score in detections.scores.tolist()],
            sum(len(visible_truth(record, range_m)) for record in (*row, *alone)),
        )

    def draw(record: FrameRecord) -> Image:
        return draw_record(record, found[record.token], score_threshold, range_m)

    text = (
        f"Colour: predicted, score at least {score_threshold:.2f}; the front face is filled. White "
        "and dashed: true boxes with at least one lidar or radar point."
    )
    in_a_row = {}
    for record in row:
        seconds = (record.timestamp_us - row[0].timestamp_us) / 1e6  # from the first that is drawn
        in_a_row[f"{record.scene_name}, {seconds:+.1f} s"] = draw(record)
    others = {}
    for record in alone:
        # Scenes may share a name: a picture must not take the place of another.
        is_taken = record.scene_name in others
        caption = f"{record.scene_name} ({record.scene_token})" if is_taken else record.scene_name
        others[caption] = draw(record)
    steady = "The same objects should keep their boxes from frame to frame."
    groups = [
        PictureGroup("Consecutive frames", f"{text} {steady}", in_a_row),
        PictureGroup("Other scenes", text, others),
    ]
    return [group for group in groups if group.pictures]


def balanced_threshold(scores: Sequence[float], num_true_boxes: int) -> float:
    """The score above which there are as many detections as true boxes, or 0."""
    # Scores of a briefly trained detector are low as a whole: a fixed threshold would show nothing
    # or everything.
    ranked = sorted(scores, reverse=True)
    return ranked[num_true_boxes] if num_true_boxes < len(ranked) else 0.0


def _chosen_frames(
    scene_lengths: Sequence[int], consecutive: int, single: int
) -> tuple[list[int], list[int]]:
    """Indices of the frames in a row, and of the single ones."""
    # The memory is empty where a scene begins: the middle shows the detector at work.
    count = min(consecutive, scene_lengths[0])
    begin = (scene_lengths[0] - count) // 2
    starts = [sum(scene_lengths[:scene]) for scene in range(len(scene_lengths))]
    others = range(1, len(scene_lengths))
    # Spread over the set: neighbouring scenes are often of the same drive.
    stride = max(1, len(others) // single) if single else 1
    alone = [starts[s] + scene_lengths[s] // 2 for s in others[::stride]][:single]
    return list(range(begin, begin + count)), alone
