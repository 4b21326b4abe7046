"""What was found in one moment, as plain numpy arrays in the frame of the vehicle or the world.

n is the number of objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from streampetr_vit.errors import InputError
from streampetr_vit.structures.dataset_spec import DatasetSpec
from streampetr_vit.structures.detections import Detections
from streampetr_vit.structures.global_boxes import GlobalBoxes
from streampetr_vit.structures.pose import Pose
from streampetr_vit.structures.tracks import Tracks
from streampetr_vit.texts import shown

FloatArray = NDArray[np.float64]
FRAMES = ("vehicle", "world")


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of one moment, best first.

    Attributes:
        centers: (n, 3) float64, the middle of each box in metres.
        sizes: (n, 3) float64, length, width and height in metres.
        yaws: (n,) float64, direction of the front, counter-clockwise from x, in radians.
        velocities: (n, 2) float64, over the ground, along x and y, in metres per second.
        scores: (n,) float64 in [0, 1], descending.
        names: (n,) names of the classes.
        frame: "vehicle" (x forward, y left, z up, as the vehicle stands in this moment) or "world".
        timestamp_s: of the moment.
        starts_scene: True where nothing of earlier moments was used.
        cameras: names of the cameras whose pictures were used.
        tracks: which objects they are, see `Tracks`; None where no tracker was at work.
        detections, reference_to_vehicle, vehicle_to_world, spec: what the arrays are made of: boxes
            in the network's reference frame, its pose, that of the vehicle, and the classes.
    """

    centers: FloatArray
    sizes: FloatArray
    yaws: FloatArray
    velocities: FloatArray
    scores: FloatArray
    names: NDArray[np.str_]
    frame: str
    timestamp_s: float
    starts_scene: bool
    cameras: Sequence[str]
    detections: Detections
    reference_to_vehicle: Pose
    vehicle_to_world: Pose
    spec: DatasetSpec
    tracks: Tracks | None = None

    @staticmethod
    def of(
        detections: Detections,
        reference_to_vehicle: Pose,
        vehicle_to_world: Pose,
        spec: DatasetSpec,
        *,
        timestamp_s: float,
        starts_scene: bool = False,
        cameras: Sequence[str] = (),
        frame: str = "vehicle",
        tracks: Tracks | None = None,
    ) -> Objects:
        """The objects of detections in the reference frame.

        Raises:
            InputError: another frame than "vehicle" and "world".
        """
        _check_frame(frame)
        boxes = detections.boxes.detach().cpu().double().numpy()  # (n, 9)
        rotation, origin = reference_to_vehicle.rotation(), reference_to_vehicle.translation_m
        if frame == "world":
            world = vehicle_to_world.rotation()
            origin = world.as_matrix() @ origin + vehicle_to_world.translation_m
            rotation = world * rotation
        yaws = boxes[:, 6]
        heading = _turned(rotation, np.stack((np.cos(yaws), np.sin(yaws)), axis=1))
        return Objects(
            centers=rotation.apply(boxes[:, :3]) + origin,
            sizes=boxes[:, 3:6].copy(),
            yaws=np.arctan2(heading[:, 1], heading[:, 0]),
            velocities=_turned(rotation, boxes[:, 7:9]),
            scores=detections.scores.detach().cpu().double().numpy(),
            names=np.array(spec.class_names)[detections.labels.cpu().numpy()],
            frame=frame,
            timestamp_s=timestamp_s,
            starts_scene=starts_scene,
            cameras=tuple(cameras),
            detections=detections,
            reference_to_vehicle=reference_to_vehicle,
            vehicle_to_world=vehicle_to_world,
            spec=spec,
            tracks=tracks,
        )

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) int64: an object keeps its id; `NO_ID`, -1, where it has none."""
        return self._tracks.ids

    @property
    def ages_s(self) -> FloatArray:
        """(n,) float64, seconds since the id was given; 0 where there is none."""
        return self._tracks.ages_s

    @property
    def _tracks(self) -> Tracks:
        return Tracks.none(len(self)) if self.tracks is None else self.tracks

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Any) -> Objects:
        """Some of the objects: `objects[objects.scores > 0.3]`, `objects[:10]`, `objects[3]`.

        Raises:
            IndexError: there is no such object, or `chosen` is nothing that numpy chooses by.
            InputError: `chosen` has more than one axis.
        """
        # A copy: torch takes no reversed views.
        rows = np.atleast_1d(np.arange(len(self))[chosen]).copy()
        if rows.ndim > 1:
            raise InputError(
                f"objects cannot be chosen by {shown(chosen)}: give a number, a slice, a mask or "
                "a list of numbers"
            )
        arrays = ("centers", "sizes", "yaws", "velocities", "scores", "names")
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in arrays},
            detections=self.detections[torch.from_numpy(rows)],
            tracks=None if self.tracks is None else self.tracks[rows],
        )

    def to(self, frame: str) -> Objects:
        """The same objects in the frame "vehicle" or "world".

        Raises:
            InputError: another frame.
        """
        return Objects.of(
            self.detections,
            self.reference_to_vehicle,
            self.vehicle_to_world,
            self.spec,
            timestamp_s=self.timestamp_s,
            starts_scene=self.starts_scene,
            cameras=self.cameras,
            frame=frame,
            tracks=self.tracks,
        )

    def global_boxes(self, sample_token: str) -> GlobalBoxes:
        """The boxes as nuScenes' evaluation takes them: those in the range of their class."""
        return GlobalBoxes.of(
            self.detections,
            self.reference_to_vehicle,
            self.vehicle_to_world,
            sample_token,
            self.spec,
        )

    def to_nuscenes(self, sample_token: str) -> list[dict[str, Any]]:
        """The records of a results file of the nuScenes detection task, in the world frame.

        Objects beyond the range of their class (`ObjectClass.range_m`) are left out, as the task
        leaves them out.
        """
        return self.global_boxes(sample_token).records()


def _check_frame(frame: str) -> None:
    if frame not in FRAMES:
        raise InputError(f"frame {shown(frame)}: objects are in {' or '.join(map(repr, FRAMES))}")


def _turned(rotation: Rotation, directions: FloatArray) -> FloatArray:
    """Directions (n, 2) of the reference frame's plane, turned and seen from above."""
    return directions @ rotation.as_matrix()[:2, :2].T
