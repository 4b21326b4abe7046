"""The boxes with ids of some frames in a row, true and predicted, and where they are shown best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampetr_vit.data.annotations import has_points
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.evaluation.tracking_files import check_tracked
from streampetr_vit.report.frames import Results
from streampetr_vit.structures import Pose

FloatArray = NDArray[np.float64]

LONGEST_WINDOW = 20  # frames: ten seconds of nuScenes
_FEWEST_FRAMES = 5  # of a window: fewer show no way
_MOST_OBJECTS = 30  # of a picture that can still be read
_MOVING_M = 2.0  # a way that is seen

_Row = tuple[int, str, str, FloatArray, float]  # of the columns of `TrackBoxes`


@dataclass(frozen=True, eq=False)
class TrackBoxes:
    """Boxes of one class or several, in the order of time. b is their number.

    Attributes:
        frames: (b,) int64, number of the frame in the window.
        ids: (b,) texts; an object keeps its id.
        kinds: (b,) texts, names of the classes that they are tracked as.
        places_m: (b, 2) float64, x and y in the world frame.
        scores: (b,) float64, of the track: the mean over its boxes; 1 for true ones.
    """

    frames: NDArray[np.int64]
    ids: NDArray[np.str_]
    kinds: NDArray[np.str_]
    places_m: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: Any) -> TrackBoxes:
        """Some of the boxes, by a mask or by indexes."""
        return TrackBoxes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def names(self) -> list[str]:
        """All ids, those that are seen first in front."""
        return list(dict.fromkeys(self.ids.tolist()))


@dataclass(frozen=True)
class Window:
    """Frames of a scene in a row.

    Attributes:
        frames: at least one.
        first: number of the first in its scene, from 0.
    """

    frames: Sequence[FrameRecord]
    first: int

    def title(self) -> str:
        """The scene, which frames of it, and how long they last."""
        seconds = (self.frames[-1].timestamp_us - self.frames[0].timestamp_us) / 1e6
        last = self.first + len(self.frames)
        name = self.frames[0].scene_name
        return f"{name}, frames {self.first + 1} to {last} ({seconds:.1f} s)"


def true_boxes(
    frames: Sequence[FrameRecord], kinds: Mapping[str, str], range_m: float
) -> TrackBoxes:
    """The boxes that the official evaluation counts, as far as a picture shows them.

    Args:
        frames: of one scene, in a row.
        kinds: class name -> what it is tracked as, see `tracked_kinds`.
        range_m: how far from the lidar, ahead and to the sides.
    """
    spec = frames[0].spec
    of_label = np.array([kinds.get(name, "") for name in spec.class_names])
    limits = np.array([entry.range_m for entry in spec.classes], dtype=np.float64)
    rows: list[_Row] = []
    for number, record in enumerate(frames):
        seen = has_points(record.num_lidar_pts, record.num_radar_pts)
        near = np.abs(record.gt_boxes[:, :2]).max(axis=1, initial=0.0) <= range_m
        known = np.flatnonzero(seen & near & (record.gt_labels >= 0))
        on_vehicle = _moved(record.gt_boxes[known, :3], record.lidar_to_ego)
        labels = record.gt_labels[known]
        # In the vehicle's xy plane, from its origin: as the metric measures the range.
        counted = np.hypot(on_vehicle[:, 0], on_vehicle[:, 1]) <= limits[labels]
        kept = counted & (of_label[labels] != "")
        columns = (
            record.instance[known][kept].tolist(),
            of_label[labels[kept]].tolist(),
            _moved(on_vehicle[kept], record.ego_to_global),
        )
        for name, kind, place in zip(*columns, strict=True):
            rows.append((number, str(name), kind, place[:2], 1.0))
    return _columns(rows)


def predicted_boxes(frames: Sequence[FrameRecord], results: Results, range_m: float) -> TrackBoxes:
    """The boxes of a results file of tracks.

    Args:
        frames, range_m: as in `true_boxes`.
        results: sample token -> boxes; a sample may be missing.

    Raises:
        InputError: a box of another form, see `check_tracked`.
    """
    rows: list[_Row] = []
    for number, record in enumerate(frames):
        boxes = results.get(record.token, [])
        check_tracked(boxes, record.token)
        for box in boxes:
            place = np.array(box["translation"], dtype=np.float64)
            if np.abs(_from_world(record, place)[:2]).max() <= range_m:
                name, score = box["tracking_name"], float(box["tracking_score"])
                rows.append((number, box["tracking_id"], name, place[:2], score))
    found = _columns(rows)
    _, track = np.unique(found.ids, return_inverse=True)
    sums, counts = np.bincount(track, found.scores), np.bincount(track)
    return TrackBoxes(found.frames, found.ids, found.kinds, found.places_m, (sums / counts)[track])


def chosen_windows(
    records: FrameRecords, kinds: Mapping[str, str], range_m: float, count: int
) -> list[Window]:
    """Frames in a row whose tracks show most: the most objects that move, in no crowd.

    Args:
        records: of the evaluated data set.
        kinds, range_m: as in `true_boxes`.
        count: how many windows at most; of different scenes where there are so many.
    """
    found: list[tuple[tuple[bool, int, int], int, Window]] = []
    begin = 0
    for scene, length in enumerate(records.scene_lengths):
        for part in _parts(length):
            frames = [records[begin + row] for row in part]
            true = true_boxes(frames, kinds, range_m)
            if len(true):
                found.append((_worth(true), scene, Window(frames, part.start)))
        begin += length
    found.sort(key=lambda entry: entry[0], reverse=True)
    # The best of each scene, and then what else there is.
    seen: set[int] = set()
    first, others = [], []
    for _, scene, window in found:
        (others if scene in seen else first).append(window)
        seen.add(scene)
    return [*first, *others][:count]


def _parts(length: int) -> list[range]:
    """Windows that divide a scene."""
    starts = range(0, length, LONGEST_WINDOW)
    parts = [range(start, min(start + LONGEST_WINDOW, length)) for start in starts]
    return [part for part in parts if len(part) >= min(_FEWEST_FRAMES, length)]


def _worth(true: TrackBoxes) -> tuple[bool, int, int]:
    names = true.names()
    ways = [np.ptp(true.places_m[true.ids == name], axis=0) for name in names]
    moving = sum(float(np.hypot(*way)) > _MOVING_M for way in ways)
    can_be_read = len(names) <= _MOST_OBJECTS
    # Of crowds the smallest.
    return can_be_read, moving if can_be_read else -len(names), len(names)


def _moved(places: FloatArray, pose: Pose) -> FloatArray:
    return pose.rotation().apply(places) + pose.translation_m


def _from_world(record: FrameRecord, place: FloatArray) -> FloatArray:
    for pose in (record.ego_to_global, record.lidar_to_ego):
        place = pose.rotation().inv().apply(place - pose.translation_m)
    return place


def _columns(rows: Sequence[_Row]) -> TrackBoxes:
    frames, ids, kinds, places, scores = zip(*rows, strict=True) if rows else ((),) * 5
    return TrackBoxes(
        np.array(frames, dtype=np.int64),
        np.array(ids, dtype=np.str_),
        np.array(kinds, dtype=np.str_),
        np.array(places, dtype=np.float64).reshape(-1, 2),
        np.array(scores, dtype=np.float64),
    )
