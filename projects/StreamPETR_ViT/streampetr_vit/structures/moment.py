"""One moment of a drive: what a car's cameras see, and where the car is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streampetr_vit.structures.pose import Pose
from streampetr_vit.structures.rig import Rig

Picture = np.ndarray | str | Path | None


@dataclass(frozen=True, eq=False)
class Moment:
    """Pictures of a rig, with the pose of the vehicle.

    Attributes:
        pictures: camera -> (height, width, 3) uint8 RGB, or a file, or None for a camera that has
            no picture in this moment.
        rig: the cameras.
        vehicle_to_world: pose of the vehicle; a `Pose`, or a 4x4 matrix.
        timestamp_s: seconds since the epoch, or since any moment.
        camera_vehicle_to_world: camera -> pose of the vehicle when its picture was taken, where
            that differs from `vehicle_to_world`.
        scene: name of the drive that it is of, and `name` of the moment in it, for files and
            messages. nuScenes: names of the scene and token of the sample.
        name: see there.
    """

    pictures: Mapping[str, Picture]
    rig: Rig
    vehicle_to_world: Pose | np.ndarray
    timestamp_s: float
    camera_vehicle_to_world: Mapping[str, Pose | np.ndarray] = field(default_factory=dict)
    scene: str = ""
    name: str = ""
