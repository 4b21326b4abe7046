"""The greedy tracker is the published ones: ids, ages and places, frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
from hand_made_boxes import boxes_of_columns

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import GlobalBoxes
from streampetr_vit.tracking.greedy import GreedyRules, GreedyTracker
from streampetr_vit.tracking.sightings import Sightings
from streampetr_vit.tracking.table import TrackTable

Record = dict[str, Any]

CT_M = 1e-6


@pytest.mark.parametrize("path", golden.files_of("tracker"), ids=lambda path: path.stem)
def test_every_run_gives_the_recorded_tracks(path: Path) -> None:
    data = golden.load_json(path)
    compared = [compare_run(data, run) for run in data["runs"]]
    assert sum(compared) > 0, "no frame could be compared"


def compare_run(data: Record, run: Record) -> int:
    """Feeds a run, compares the frames that can be compared, and counts those frames.

    The reference keeps some tracks that it does not return, see quirk 2. From where one comes back
    ours differ; with the Hungarian method, whose leftover pairs depend on all tracks, from the
    moment after on. They agree again when the tracker is reset.
    """
    tracker = GreedyTracker(NUSCENES, rules_of(data, run))
    hungarian, revived = run["config"]["hungarian"], run["first_frame_with_revived_track"]
    table, comparable, compared = TrackTable.empty(), True, 0
    sources: dict[int, list[int]] = {}
    for index, (frame, output) in enumerate(zip(data["frames"], run["outputs"], strict=True)):
        if frame["first"]:
            table, comparable, sources = TrackTable.empty(), True, {}
        if output["tracks"] is None:  # the reference raised, and kept its tracks as they were
            continue
        seen = Sightings.of(boxes_of_frame(frame), NUSCENES)
        table, rows = tracker.advance(table, seen, frame["time_lag"], frame["timestamp"])
        ids = table.ids[: len(rows)].tolist()
        sources |= {own: [index, row] for own, row in zip(ids, rows.tolist(), strict=True)}
        comparable &= index != revived
        if comparable:
            where = f"{run['config']}, frame {index}"
            compare_frame(data["frames"], output, table, sources, where)
            compared += 1
        comparable &= not (hungarian and output["kept"] != "same")
    return compared


def compare_frame(
    frames: list[Record],
    output: Record,
    table: TrackTable,
    sources: dict[int, list[int]],
    where: str,
) -> None:
    expected = output["tracks"]
    held = [sources[own] for own in table.ids.tolist()]
    assert table.ids.tolist() == [track["id"] for track in expected], where
    assert held == [track["source"] for track in expected], where
    assert table.ages.tolist() == [track["age"] for track in expected], where
    assert table.actives.tolist() == [track["active"] for track in expected], where
    assert table.next_id - 1 == output["id_count"], where
    assert np.flatnonzero(table.actives > 0).tolist() == output["published"], where
    names = [NUSCENES.class_names[label] for label in table.labels]
    assert names == [track["name"] for track in expected], where
    scores = [frames[frame]["detections"][row]["detection_score"] for frame, row in held]
    assert scores == [track["score"] for track in expected], where
    places = np.array([track["ct"] for track in expected]).reshape(-1, 2)
    np.testing.assert_allclose(table.centers_m, places, rtol=0, atol=CT_M, err_msg=where)


def rules_of(data: Record, run: Record) -> GreedyRules:
    config = run["config"]
    published = {"streampetr": False, "centerpoint": True}
    return GreedyRules(
        radii=data["radii"][config["radii"]],
        hungarian=config["hungarian"],
        score_threshold=config["score_threshold"] or 0.0,
        max_age=config["max_age"],
        keep_s=0.0,
        forget_when_empty=published[config["tracker"]],
    )


def boxes_of_frame(frame: Record) -> GlobalBoxes:
    found = frame["detections"]
    return boxes_of_columns(
        names=[box["detection_name"] for box in found],
        centers_m=np.array([box["translation"][:2] for box in found]).reshape(-1, 2),
        velocities_mps=np.array([box["velocity"] for box in found]).reshape(-1, 2),
        scores=np.array([box["detection_score"] for box in found]),
    )
