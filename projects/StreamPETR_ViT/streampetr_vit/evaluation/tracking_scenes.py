"""A tracker over the boxes of whole scenes, such as those of a results file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.progress import progress
from streampetr_vit.structures import GlobalBoxes, Tracks
from streampetr_vit.tracking.table import TrackTable
from streampetr_vit.tracking.tracker import Tracker


def track_scenes(
    tracker: Tracker, samples: Sequence[GlobalBoxes], records: FrameRecords
) -> Iterator[Tracks]:
    """The tracks of each sample, one after the other. Ids begin at 1 in each scene.

    Args:
        tracker: one that needs no memory of a network.
        samples: boxes in the order of the records, that is scene by scene and in order of time.
        records: of the same samples.

    Raises:
        InputError: see `Tracker.step`.
    """
    table, last_scene = TrackTable.empty(), None
    for boxes, record in zip(progress(samples, "tracking", "samples"), records, strict=True):
        if record.scene_token != last_scene:
            table, last_scene = TrackTable.empty(), record.scene_token
        step = tracker.step(table, boxes, record.timestamp_us / 1e6, record.ego_to_global)
        table = step.table
        yield step.tracks  # not a list: the trails of all samples are large
