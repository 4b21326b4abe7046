"""Moments of a car with four cameras of two sizes, and what was found in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import Camera, Detections, Moment, Objects, Pose, Rig
from streampetr_vit.structures.tracks import NO_ID, TRAIL_LENGTH, Tracks

SIZES = {"front": (320, 180), "left": (200, 200), "rear": (320, 180), "right": (200, 200)}
YAWS_DEGREES = {"front": 0, "left": 90, "rear": 180, "right": -90}
# x right, y down, z forward -> x forward, y left, z up
AHEAD = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
FOCAL_PX = 200.0
REFERENCE_TO_VEHICLE = Pose(
    np.array([0.94, 0.0, 1.84]), np.array([np.sqrt(0.5), 0.0, 0.0, -np.sqrt(0.5)])
)
VEHICLE = Pose(np.array([1000.0, 2000.0, 5.0]), np.array([np.cos(0.2), 0.0, 0.0, np.sin(0.2)]))


def camera(name: str) -> Camera:
    """One of the four, 1.6 m above the ground and 1.5 m from the rear axle."""
    width, height = SIZES[name]
    turn = Rotation.from_euler("z", YAWS_DEGREES[name], degrees=True)
    x, y, z, w = (turn * AHEAD).as_quat()
    place = turn.apply([1.5, 0.0, 1.6])
    intrinsics = np.array([[FOCAL_PX, 0, width / 2], [0, FOCAL_PX, height / 2], [0, 0, 1]])
    return Camera(name, width, height, intrinsics, Pose(place, np.array([w, x, y, z])))


def moment(number: int = 0, scene: str = "drive 1") -> Moment:
    """A moment in which each camera sees one grey: 80, 100, 120, 140 in the order of `SIZES`.

    The car drives 5 m ahead from one to the next, which are half a second apart.
    """
    rig = Rig([camera(name) for name in SIZES])
    pictures = {
        name: np.full((height, width, 3), 80 + 20 * index, np.uint8)
        for index, (name, (width, height)) in enumerate(SIZES.items())
    }
    place = VEHICLE.translation_m + VEHICLE.rotation().apply([5.0 * number, 0.0, 0.0])
    pose = Pose(place, VEHICLE.rotation_wxyz)
    return Moment(pictures, rig, pose, 12.5 + number / 2, scene=scene, name=f"{number:06d}")


def found(number: int = 0, starts_scene: bool = False) -> Objects:
    """A car of score 0.75 and a pedestrian of score 0.25, in the frame of the vehicle.

    The car is 12 m ahead and 3 m to the left of the vehicle, is 4 m long and drives ahead at 3 m/s.
    """
    # Reference frame: x right, y ahead, from the lidar's place.
    car = [-3.0, 12.0 - 0.94, 0.8 - 1.84, 4.0, 2.0, 1.6, np.pi / 2, 0.0, 3.0]
    pedestrian = [4.0, 8.0 - 0.94, 0.9 - 1.84, 0.6, 0.6, 1.8, 0.0, 0.0, 0.0]
    labels = [NUSCENES.class_names.index(name) for name in ("car", "pedestrian")]
    return objects_of(
        Detections(
            torch.tensor([car, pedestrian]), torch.tensor([0.75, 0.25]), torch.tensor(labels)
        ),
        moment(number),
        REFERENCE_TO_VEHICLE,
        starts_scene,
    )


def objects_of(
    detections: Detections, moment: Moment, reference: Pose, starts_scene: bool = False
) -> Objects:
    """Objects of nuScenes' classes."""
    assert isinstance(moment.vehicle_to_world, Pose)
    return Objects.of(
        detections,
        reference,
        moment.vehicle_to_world,
        NUSCENES,
        timestamp_s=moment.timestamp_s,
        starts_scene=starts_scene,
        cameras=moment.rig.names,
    )


def tracked(number: int = 0) -> Objects:
    """The same with ids: the car is number 7, 1.5 s old, the pedestrian has none.

    The car stood 2 m further back on its way in each of the three moments before.
    """
    objects = found(number)
    trails = np.full((2, TRAIL_LENGTH, 2), np.nan)
    places = np.array([[12.0 - 2.0 * k, 3.0, 0.0] for k in (3, 2, 1, 0)])  # in the vehicle's frame
    pose = objects.vehicle_to_world
    trails[0, -4:] = (pose.rotation().apply(places) + pose.translation_m)[:, :2]
    tracks = Tracks(
        ids=np.array([7, NO_ID]),
        ages_s=np.array([1.5, 0.0]),
        scores=np.array([0.7, 0.0]),
        trails_m=trails,
    )
    return replace(objects, tracks=tracks)
