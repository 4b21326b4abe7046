"""Ids for what a network has found, and back into its memory.

Shape letters: Q queries of a frame, learned and propagated.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from streampetr_vit.evaluation.sound_boxes import sound_rows
from streampetr_vit.modeling.temporal.memory import UNCHANGED, TemporalMemory, named
from streampetr_vit.structures import Detections, GlobalBoxes, Pose, Tracks
from streampetr_vit.structures.tensors import move_tensor
from streampetr_vit.tracking.table import TrackTable
from streampetr_vit.tracking.tracker import Tracker, TrackerStep


def track(
    tracker: Tracker,
    table: TrackTable,
    found: Detections,
    reference_to_vehicle: Pose,
    vehicle_to_world: Pose,
    timestamp_s: float,
    sample_token: str,
) -> tuple[Tracks, TrackerStep]:
    """The next step of a tracker with the detections of one car.

    Args:
        found: on the CPU, in the reference frame. Broken ones, and those beyond the range of their
            class, get no id.
        table, timestamp_s: see `Tracker.step`.
        reference_to_vehicle, vehicle_to_world: poses of the reference frame and of the vehicle.
        sample_token: names the moment in errors.

    Returns:
        The tracks of all detections, and what the tracker has made.
    """
    sound = sound_rows(found)
    boxes = GlobalBoxes.of(
        found[sound], reference_to_vehicle, vehicle_to_world, sample_token, tracker.spec
    )
    step = tracker.step(table, boxes, timestamp_s, vehicle_to_world)
    assert boxes.rows is not None
    rows = sound.nonzero()[:, 0].numpy()[boxes.rows]
    return step.tracks.spread(rows, len(found)), step


def named_by(
    step: TrackerStep, memory: TemporalMemory, remembered: Tensor, queries: int
) -> TemporalMemory:
    """The memory of one car after a frame, with the ids of a tracker.

    Args:
        step: what the tracker has made of the frame.
        memory: (1, M, ...) after the frame.
        remembered: (1, K) int64, see `PaddedDetections`.
        queries: Q.
    """
    if not len(step.queries):
        return memory
    ids = np.full((1, queries), UNCHANGED, dtype=np.int64)
    ids[0, step.queries] = step.query_ids
    return named(memory, remembered, move_tensor(torch.from_numpy(ids), remembered.device))
