"""The key frames of a data set in the nuScenes format, as moments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.inference.sources.base import rate_of, rows_of
from streampetr_vit.structures import Camera, Moment, Pose, Rig


class NuScenesSource:
    """The moments of a data set, one for each key frame.

    The poses of the cameras have the motion of the car between the time of the lidar and that of
    the picture, as in training.

    Args:
        records: of `catalog.open_dataset`.

    Attributes:
        scenes, description: see `Source`. Where scenes share a name, their tokens follow it.
    """

    def __init__(self, records: FrameRecords) -> None:
        self._records = records
        lengths, names = records.scene_lengths, records.scene_names
        firsts = [sum(lengths[:scene]) for scene in range(len(lengths))]
        self.scenes = [
            (name if names.count(name) == 1 else f"{name} {records[first].scene_token}", length)
            for name, length, first in zip(names, lengths, firsts, strict=True)
        ]
        tokens = hashlib.sha256("\n".join(records.tokens).encode()).hexdigest()[:16]
        self.description: Mapping[str, object] = {
            "root": str(records.root),
            "version": records.version,
            "samples": f"{len(records)} {tokens}",
        }

    def frames(self, scene: str, start: int = 0) -> Iterator[Moment]:
        """The moments of a scene, see `Source`.

        Raises:
            InputError: there is no such scene.
        """
        rows = rows_of(self.scenes, scene, start)
        return (moment_of(self._records[row], scene) for row in rows)

    def frames_per_second(self, scene: str) -> float:
        """See `Source`."""
        rows = rows_of(self.scenes, scene)
        return rate_of(self._records.timestamps_us[rows.start : rows.stop] / 1e6)


def moment_of(record: FrameRecord, scene: str | None = None) -> Moment:
    """A key frame as a moment.

    Args:
        record: the key frame.
        scene: name of its scene; None takes the one of the tables.
    """
    lidar_to_ego = record.lidar_to_ego.matrix()
    cameras = [
        Camera(
            name=name,
            width=int(record.image_sizes[index, 0]),
            height=int(record.image_sizes[index, 1]),
            intrinsics=record.camera_intrinsics[index],
            camera_to_vehicle=Pose.of_matrix(lidar_to_ego @ record.camera_to_lidar[index]),
        )
        for index, name in enumerate(record.spec.cameras)
    ]
    return Moment(
        pictures={name: record.picture(i) for i, name in enumerate(record.spec.cameras)},
        rig=Rig(cameras, record.lidar_to_ego),
        vehicle_to_world=record.ego_to_global,
        timestamp_s=record.timestamp_us / 1e6,
        scene=record.scene_name if scene is None else scene,
        name=record.token,
    )
