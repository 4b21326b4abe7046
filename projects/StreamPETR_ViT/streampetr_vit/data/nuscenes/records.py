"""The key frames of a data set as columns of one memory-mapped file.

A data set of 34,000 frames and 1.2 million boxes is a few arrays, not a list of dicts: opening it
takes milliseconds, a worker process that receives it opens the same file instead of copying it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streampetr_vit.data.nuscenes.cache import as_strings, map_arrays
from streampetr_vit.data.nuscenes.cache_layout import check_layout
from streampetr_vit.data.nuscenes.picture_files import picture_path
from streampetr_vit.errors import InputError
from streampetr_vit.logs import log_once
from streampetr_vit.structures import DatasetSpec, Pose
from streampetr_vit.texts import name_list, nearest

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameRecord:
    """One key frame. Shape letters: N cameras in the order of `spec.cameras`, n boxes.

    The boxes are of all categories, with or without sensor points.
    """

    root: Path  # data root, absolute; the paths below are relative to it
    token: str  # of the sample
    scene_token: str
    scene_name: str
    timestamp_us: int  # of the sample, since the epoch
    spec: DatasetSpec  # classes and cameras
    lidar_to_ego: Pose  # calibration of the lidar, or of the frame that stands for it
    ego_to_global: Pose  # at the lidar's time, or the sample's
    camera_paths: tuple[str, ...]  # N
    camera_timestamps_us: np.ndarray  # (N,) int64
    camera_to_lidar: np.ndarray  # (N, 4, 4) float64, with the car's motion between their times
    camera_intrinsics: np.ndarray  # (N, 3, 3) float64, in pixels of the stored picture
    image_sizes: np.ndarray  # (N, 2) int32, (width, height) of the stored picture
    # (n, 9) float64, lidar frame, gravity centre; velocity is NaN where the tracks define none
    gt_boxes: np.ndarray
    # (n, 4) float64 quaternions (w, x, y, z), box -> lidar frame, with the tilt that no yaw has
    gt_rotation: np.ndarray
    gt_labels: np.ndarray  # (n,) int64, index into `spec.classes`, -1 for other categories
    num_lidar_pts: np.ndarray  # (n,) int32
    num_radar_pts: np.ndarray  # (n,) int32
    instance: np.ndarray  # (n,) int32, number of the object, the same in all frames of its scene
    has_annotations: bool  # False for a set without ground truth; then n is 0

    def picture(self, camera: int) -> Path:
        """The file of a camera's picture.

        Raises:
            InputError: it would lie outside of the data root.
        """
        return picture_path(self.root, self.camera_paths[camera])


class FrameRecords(Sequence[FrameRecord]):
    """Key frames ordered by scene (first timestamp) and time; a scene's frames are adjacent.

    Args:
        path: the cache file that `build_records.load_records` wrote.
        root: data root that the picture paths are relative to.
        spec: classes and cameras; the file was written for these cameras.
        scene_rows: numbers of the scenes to keep, ascending; None keeps all.

    Raises:
        CacheError: the file is none, or holds something else.
    """

    def __init__(
        self, path: Path, root: Path, spec: DatasetSpec, scene_rows: Sequence[int] | None = None
    ):
        self.path, self.root, self.spec = Path(path), Path(root), spec
        self._columns, self.metadata = map_arrays(self.path)
        self.category_names = check_layout(self._columns, self.metadata, len(spec.cameras))
        # The file holds categories: data sets of other classes share it.
        labels = spec.label_of_category
        of_category = [labels.get(name, -1) for name in self.category_names]
        self._label_of_category = np.array(of_category, dtype=np.int64)
        offsets = self._columns["scene_offsets"]
        rows = range(len(offsets) - 1) if scene_rows is None else scene_rows
        self._scene_rows = np.array(rows, dtype=np.int64)
        # Rows of the chosen frames in the columns; the frames of a scene are adjacent there.
        self._rows = np.flatnonzero(np.isin(self._columns["scene_of_frame"], self._scene_rows))
        lengths = np.diff(offsets)[self._scene_rows]
        self.scene_lengths: tuple[int, ...] = tuple(lengths.tolist())

    # A worker process gets the paths and the chosen scenes, and maps the same file.
    def __reduce__(self) -> tuple[Any, ...]:
        return FrameRecords, (self.path, self.root, self.spec, self._scene_rows.tolist())

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def version(self) -> str:
        """Name of the version folder, for example v1.0-trainval."""
        return self.metadata["version"]

    @property
    def has_annotations(self) -> bool:
        """Whether the set has ground truth."""
        return self.metadata["has_annotations"] == "True"

    @property
    def scene_names(self) -> list[str]:
        """Names of the scenes, in the order of the frames."""
        return [name.decode() for name in self._strings("scene_name")[self._scene_rows]]

    @property
    def tokens(self) -> list[str]:
        """Sample tokens of all frames."""
        return [token.decode() for token in self._strings("token")[self._rows]]

    @property
    def timestamps_us(self) -> np.ndarray:
        """(len(self),) int64, times of all frames in microseconds."""
        return self._columns["timestamp_us"][self._rows]

    @property
    def lidar_to_ego(self) -> np.ndarray:
        """(len(self), 7) float64, `FrameRecord.lidar_to_ego` as (x, y, z, qw, qx, qy, qz)."""
        return self._columns["lidar_to_ego"][self._rows]

    @property
    def image_sizes(self) -> np.ndarray:
        """(len(self), N, 2) int32, (width, height) of all pictures."""
        return self._columns["image_size"][self._rows]

    def boxes(self, column: str) -> np.ndarray:
        """A column of all boxes of the chosen scenes, such as gt_boxes (boxes, 9)."""
        values = self._columns[column]
        if len(self._rows) == len(self._columns["timestamp_us"]):
            return values  # nothing is copied
        boxes_of_frame = np.diff(self._columns["box_offsets"])
        chosen = np.isin(np.arange(len(boxes_of_frame)), self._rows)
        return values[np.repeat(chosen, boxes_of_frame)]

    @property
    def labels(self) -> np.ndarray:
        """(boxes,) int64 of the chosen scenes, index into `spec.classes`; -1 for no class."""
        return self._label_of_category[self.boxes("gt_category")]

    def boxes_per_class(self) -> np.ndarray:
        """(classes + 1,) int64, boxes of the chosen scenes by label; the last is unmapped."""
        places = len(self.spec.classes) + 1
        # Label -1 becomes the last place.
        return np.bincount(self.labels % places, minlength=places)

    def select_scenes(self, names: Sequence[str]) -> FrameRecords:
        """The frames of some scenes, in the same order. A name stands for all scenes that have it.

        Raises:
            InputError: if a scene is not in the set.
        """
        have: dict[str, list[int]] = {}
        for name, row in zip(self.scene_names, self._scene_rows.tolist(), strict=True):
            have.setdefault(name, []).append(row)
        missing = [name for name in names if not isinstance(name, str) or name not in have]
        if missing:
            alike = [n for name in missing[:5] for n in nearest(str(name), have)]
            first = dict.fromkeys([*alike, *have])  # the names that may be meant come first
            raise InputError(
                f"scenes {name_list(missing, 5)} are not in {self.root / self.version}, which has "
                f"{len(have)} scenes: {name_list(first, 30)}; choose among those"
            )
        shared = [name for name in dict.fromkeys(names) if len(have[name]) > 1]
        if shared:
            count = sum(len(have[name]) for name in shared)
            message = f"{self.root / self.version} has {count} scenes with the names "
            message += f"{name_list(shared)}: each name stands for all of its scenes"
            log_once(_LOG, logging.WARNING, message)
        # Once each and in the order of the frames, whatever the order of the names.
        rows = sorted({row for name in names for row in have[name]})
        return FrameRecords(self.path, self.root, self.spec, rows)

    def __getitem__(self, index: int) -> FrameRecord:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        columns, row = self._columns, int(self._rows[index])
        scene = int(columns["scene_of_frame"][row])
        boxes = slice(*columns["box_offsets"][row : row + 2].tolist())  # rows of this frame
        return FrameRecord(
            root=self.root,
            token=self._strings("token")[row].decode(),
            scene_token=self._strings("scene_token")[scene].decode(),
            scene_name=self._strings("scene_name")[scene].decode(),
            timestamp_us=int(columns["timestamp_us"][row]),
            spec=self.spec,
            lidar_to_ego=Pose.of_row(columns["lidar_to_ego"][row]),
            ego_to_global=Pose.of_row(columns["ego_to_global"][row]),
            camera_paths=tuple(p.decode() for p in self._strings("camera_path")[row]),
            camera_timestamps_us=columns["camera_timestamp_us"][row],
            camera_to_lidar=columns["camera_to_lidar"][row],
            camera_intrinsics=columns["camera_intrinsics"][row],
            image_sizes=columns["image_size"][row],
            gt_boxes=columns["gt_boxes"][boxes],
            gt_rotation=columns["gt_rotation"][boxes],
            gt_labels=self._label_of_category[columns["gt_category"][boxes]],
            num_lidar_pts=columns["num_lidar_pts"][boxes],
            num_radar_pts=columns["num_radar_pts"][boxes],
            instance=columns["instance"][boxes],
            has_annotations=self.has_annotations,
        )

    def _strings(self, name: str) -> np.ndarray:
        return as_strings(self._columns[name])
