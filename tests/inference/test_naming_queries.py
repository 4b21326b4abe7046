"""Ids of a tracker find their detections, and their entries of the memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tracking_by_query import QueryTracker

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.inference.tracking import track
from streampetr_vit.modeling.temporal.memory import NO_LINEAGE, UNCHANGED, TemporalMemory, named
from streampetr_vit.structures import NO_ID, Detections, Pose
from streampetr_vit.tracking.table import TrackTable

HERE = Pose(np.zeros(3), np.array([1.0, 0, 0, 0]))


def test_broken_and_far_detections_do_not_move_the_ids_of_others() -> None:
    boxes = torch.ones(5, 9)
    boxes[0, 0], boxes[2, 0] = float("nan"), 500.0
    queries, lineages = torch.arange(5), torch.tensor([90, 11, 92, 13, 14])
    found = Detections(boxes, torch.ones(5), torch.zeros(5, dtype=torch.long), queries, lineages)
    tracks, step = track(
        QueryTracker(NUSCENES), TrackTable.empty(), found, HERE, HERE, 0.0, "a sample"
    )
    assert tracks.ids.tolist() == [NO_ID, 11, NO_ID, 13, 14]
    assert step.queries.tolist() == [1, 3, 4]


def test_an_entry_keeps_its_lineage_where_the_tracker_says_nothing() -> None:
    memory = TemporalMemory.empty(1, 4, 8)
    memory = replace(memory, lineage=torch.tensor([[5, 6, 7, 8]]))
    ids = torch.tensor([[NO_LINEAGE, 30, UNCHANGED]])  # of the queries 0, 1, 2
    after = named(memory, torch.tensor([[2, 0, 1]]), ids)
    assert after.lineage.tolist() == [[5, NO_LINEAGE, 30, 8]]
    assert memory.lineage.tolist() == [[5, 6, 7, 8]]
