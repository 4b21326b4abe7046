"""Looks a rig and its drives over: what is there, and what looks wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from streampetr_vit.inference.checks.poses import mistakes_of_poses
from streampetr_vit.inference.checks.rig import mistakes_of_rig
from streampetr_vit.structures import Camera, Moment, Pose, Rig
from streampetr_vit.structures.lens_checks import fields_of_view_deg
from streampetr_vit.structures.rigid import as_pose
from streampetr_vit.texts import printable

_FARTHEST_M = 50.0  # between the poses of one moment: 0.5 s of the fastest car


@dataclass
class _Scene:
    times_s: list[float] = field(default_factory=list)
    poses: list[Pose] = field(default_factory=list)
    far: list[str] = field(default_factory=list)  # what is wrong with the poses of pictures


class DriveCheck:
    """Collects the moments of drives, without their pictures.

    Args:
        rig: of all moments.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._scenes: dict[str, _Scene] = {}
        self._seen = dict.fromkeys(rig.names, 0)  # camera -> how many pictures
        self._count = 0

    def add(self, moment: Moment) -> None:
        """Takes note of a moment.

        Raises:
            InputError: a pose is none; names the frame.
        """
        scene = self._scenes.setdefault(moment.scene, _Scene())
        what = f"frame {len(scene.times_s)} of scene {printable(moment.scene)}"
        pose = as_pose(moment.vehicle_to_world, f"vehicle_to_world of {what}")
        for name, theirs in moment.camera_vehicle_to_world.items():
            other = as_pose(theirs, f"camera_vehicle_to_world of camera {name} in {what}")
            far = float(np.linalg.norm(other.translation_m - pose.translation_m))
            if far > _FARTHEST_M and not scene.far:
                scene.far.append(
                    f"frame {len(scene.times_s)}: the pose of the vehicle for camera {name} is "
                    f"{far:.0f} m from that of the moment: give both in one world"
                )
        for name in self._seen:
            self._seen[name] += moment.pictures.get(name) is not None
        scene.times_s.append(moment.timestamp_s)
        scene.poses.append(pose)
        self._count += 1

    def mistakes(self) -> list[str]:
        """What looks wrong, a line each."""
        lines = mistakes_of_rig(self._rig)
        if self._count:
            lines += [
                f"camera {name}: it has no picture in any of {self._count} frames: check its "
                "folder, or leave it out of the rig"
                for name, count in self._seen.items()
                if count == 0
            ]
        for name, scene in self._scenes.items():
            found = mistakes_of_poses(scene.times_s, scene.poses) + scene.far
            lines += [f"scene {printable(name)}, {line}" for line in found]
        return lines

    def summary(self) -> list[str]:
        """What is there: a line for each camera and for each scene."""
        lines = [_camera_line(camera) for camera in self._rig.cameras]
        if self._count:
            lines = [
                f"{line}, {count} of {self._count} pictures"
                for line, count in zip(lines, self._seen.values(), strict=True)
            ]
        return lines + [_scene_line(name, scene) for name, scene in self._scenes.items()]


def _camera_line(camera: Camera) -> str:
    fisheye = camera.distortion is not None and camera.distortion.model == "fisheye"
    across, down = fields_of_view_deg(camera.intrinsics, camera.width, camera.height, fisheye)
    x, y, z = camera.camera_to_vehicle.translation_m
    look = camera.camera_to_vehicle.matrix()[:3, 2]
    yaw, up = np.degrees([np.arctan2(look[1], look[0]), np.arcsin(np.clip(look[2], -1, 1))])
    lens = "straight" if camera.distortion is None else camera.distortion.model
    return (
        f"camera {camera.name}: {camera.width}x{camera.height}, {across:.0f} x {down:.0f} degrees, "
        f"{lens}, at ({x:.2f}, {y:.2f}, {z:.2f}) m, yaw {yaw:.0f}, {abs(up):.0f} degrees "
        f"{'up' if up > 0 else 'down'}"
    )


def _scene_line(name: str, scene: _Scene) -> str:
    places = np.stack([pose.translation_m for pose in scene.poses])
    way = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    seconds = scene.times_s[-1] - scene.times_s[0]
    return (
        f"scene {printable(name)}: {len(scene.times_s)} frames in {seconds:.1f} s, a way of "
        f"{way:.0f} m"
    )
