"""Small nuScenes tables without picture files, whose ground truth is known in closed form.

Every class has several boxes in every frame, boxes of one class keep well apart, and everything
moves at constant velocity, so that the devkit's velocities are exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import DatasetSpec, Detections, Pose, Sample

VERSION = "v1.0-trainval"
# Scenes of the official val split.
SCENES = ("scene-0003", "scene-0012", "scene-0013", "scene-0014")
LIDAR_TO_EGO = Pose(np.array([0.94, 0.0, 1.84]), np.array([np.sqrt(0.5), 0.0, 0.0, -np.sqrt(0.5)]))
# All cameras look ahead: only the lidar matters to the metric.
CAMERA_TO_EGO = Pose(np.array([1.7, 0.0, 1.5]), np.array([0.5, -0.5, 0.5, -0.5]))
CAMERA_INTRINSIC = [[316.0, 0.0, 202.0], [0.0, 316.0, 122.0], [0.0, 0.0, 1.0]]
IMAGE_SIZE = (400, 225)  # width, height
SAME_CLASS_SPACING_M = 10.0
FRAME_SECONDS = 0.5
EGO_SPEED_MPS = 3.0
STANDING = ("barrier", "traffic_cone")


@dataclass(frozen=True)
class TrueSample:
    """Ground truth of one sample in the lidar frame, with the scores 1."""

    token: str
    lidar_to_ego: Pose
    ego_to_global: Pose
    detections: Detections
    has_points: torch.Tensor | None = None

    def sample(self) -> Sample:
        """What the mapper makes of it, as far as the evaluator reads it."""
        nothing = torch.zeros(())
        return Sample(
            images=nothing,
            intrinsics=nothing,
            lidar_to_camera=nothing,
            lidar_to_image=nothing,
            lidar_to_global=nothing,
            global_to_lidar=nothing,
            timestamp_s=nothing,
            continues_stream=nothing,
            sample_token=self.token,
            lidar_to_ego=self.lidar_to_ego,
            ego_to_global=self.ego_to_global,
        )

    def visible(self) -> Detections:
        """The boxes that the official evaluation scores: those with lidar or radar points."""
        d = self.detections
        kept = slice(None) if self.has_points is None else self.has_points
        return Detections(d.boxes[kept], d.scores[kept], d.labels[kept])


@dataclass(frozen=True)
class Layout:
    """What the tables hold.

    Attributes:
        spec: classes, whose objects take their categories in turn, cameras and lidar.
        classes: names of those that have objects; None for all.
        lidar_to_ego: pose of the lidar, or of the frame that stands for it.
        image_sizes: camera -> (width, height), where it is not `IMAGE_SIZE`.
        camera_delay_s: camera -> how long after the sample its picture is taken.
    """

    spec: DatasetSpec = NUSCENES
    classes: Sequence[str] | None = None
    lidar_to_ego: Pose = LIDAR_TO_EGO
    image_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    camera_delay_s: Mapping[str, float] = field(default_factory=dict)


NUSCENES_LAYOUT = Layout()


def write_tables(
    root: Path,
    scenes: Sequence[str] = SCENES,
    version: str = VERSION,
    frames: int = 4,
    boxes_per_class: int = 4,
    layout: Layout = NUSCENES_LAYOUT,
    seed: int = 0,
) -> list[TrueSample]:
    """Writes the 13 tables and returns the ground truth, frame by frame, scene after scene."""
    tables = _Tables(layout)
    truth = []
    for index, scene in enumerate(scenes):
        rng = np.random.default_rng([seed, index])
        truth += tables.add_scene(scene, frames, _objects(rng, boxes_per_class, layout), rng)
    (root / "maps").mkdir(parents=True, exist_ok=True)
    (root / "maps" / "empty.png").touch()
    (root / version).mkdir()
    for name, rows in tables.rows.items():
        (root / version / f"{name}.json").write_text(json.dumps(rows))
    return truth


@dataclass
class _Object:
    label: int
    category: str
    start_m: np.ndarray  # (3,) relative to the ego's start
    size_lwh_m: np.ndarray
    yaw_rad: float
    speed_mps: float
    invisible_frame: int | None

    def center(self, seconds: float) -> np.ndarray:
        return self.start_m + seconds * np.array([*self.velocity, 0.0])

    @property
    def velocity(self) -> np.ndarray:
        return self.speed_mps * np.array([np.cos(self.yaw_rad), np.sin(self.yaw_rad)])


def _objects(rng: np.random.Generator, per_class: int, layout: Layout) -> list[_Object]:
    objects = []
    classes = layout.spec.classes
    names = layout.spec.class_names if layout.classes is None else layout.classes
    for name in names:
        label = layout.spec.class_names.index(name)
        starts: list[np.ndarray] = []
        while len(starts) < per_class:
            start = np.array([*rng.uniform(-22, 22, size=2), rng.uniform(0.5, 1.5)])
            # Room for the motion of both boxes.
            if all(np.hypot(*(start - other)[:2]) > SAME_CLASS_SPACING_M + 6 for other in starts):
                starts.append(start)
        for k, start in enumerate(starts):
            stands = k == 0 or name in STANDING
            categories = classes[label].categories
            objects.append(
                _Object(
                    label=label,
                    category=categories[k % len(categories)],
                    start_m=start,
                    size_lwh_m=rng.uniform([1.5, 0.5, 1.0], [5.0, 1.4, 3.0]),
                    yaw_rad=rng.uniform(-np.pi, np.pi),
                    # Movers stay within 3 m of their start; their mean speed exceeds 1 m/s.
                    speed_mps=0.0 if stands else rng.uniform(1.6, 1.9),
                    invisible_frame=int(rng.integers(4)) if k == 1 else None,
                )
            )
    return objects


def _ego_pose(start: np.ndarray, yaw_rad: float, seconds: float) -> Pose:
    forward = np.array([np.cos(yaw_rad), np.sin(yaw_rad), 0.0])
    return Pose(
        start + EGO_SPEED_MPS * seconds * forward,
        np.array([np.cos(yaw_rad / 2), 0, 0, np.sin(yaw_rad / 2)]),
    )


def _sensor(channel: str) -> dict[str, Any]:
    modality = "lidar" if channel.startswith("LIDAR") else "camera"
    return {"token": channel, "channel": channel, "modality": modality}


def _calibration(channel: str, to_ego: Pose, intrinsic: list[list[float]]) -> dict[str, Any]:
    return {
        "token": channel,
        "sensor_token": channel,
        "translation": to_ego.translation_m.tolist(),
        "rotation": to_ego.rotation_wxyz.tolist(),
        "camera_intrinsic": intrinsic,
    }


class _Tables:
    def __init__(self, layout: Layout) -> None:
        self.layout, spec = layout, layout.spec
        lidars = [] if spec.lidar is None else [spec.lidar]
        self.channels = (*lidars, *spec.cameras)
        attributes = sorted({a for entry in spec.classes for a in entry.attributes if a})
        categories = list(spec.label_of_category)
        self.rows: dict[str, list[dict[str, Any]]] = {
            "category": [{"token": c, "name": c, "description": ""} for c in categories],
            "attribute": [{"token": a, "name": a, "description": ""} for a in attributes],
            "visibility": [{"token": "4", "level": "v80-100", "description": ""}],
            "sensor": [_sensor(channel) for channel in self.channels],
            "calibrated_sensor": [
                *(_calibration(name, layout.lidar_to_ego, []) for name in lidars),
                *(_calibration(name, CAMERA_TO_EGO, CAMERA_INTRINSIC) for name in spec.cameras),
            ],
            "map": [{"token": "map", "filename": "maps/empty.png", "log_tokens": ["log"]}],
            "log": [{"token": "log", "logfile": "", "vehicle": "", "location": ""}],
        }
        self.rows.update(
            {t: [] for t in ("instance", "scene", "sample", "sample_data", "ego_pose")}
        )
        self.rows["sample_annotation"] = []

    def add_scene(
        self, name: str, frames: int, objects: list[_Object], rng: np.random.Generator
    ) -> list[TrueSample]:
        tokens = [f"{name}-{k}" for k in range(frames)]
        self.rows["scene"].append(
            {
                "token": name,
                "name": name,
                "description": "",
                "log_token": "log",
                "nbr_samples": frames,
                "first_sample_token": tokens[0],
                "last_sample_token": tokens[-1],
            }
        )
        for k, thing in enumerate(objects):
            self.rows["instance"].append({"token": f"{name}/{k}", "category_token": thing.category})
        yaw = rng.uniform(-np.pi, np.pi)
        start = np.array([600.0, 1600.0, 0.0]) + [*rng.uniform(-100, 100, size=2), 0.0]
        return [
            self._add_frame(name, tokens, index, objects, start, yaw) for index in range(frames)
        ]

    def _add_frame(
        self,
        scene: str,
        tokens: list[str],
        index: int,
        objects: list[_Object],
        start: np.ndarray,
        yaw: float,
    ) -> TrueSample:
        token, seconds = tokens[index], index * FRAME_SECONDS
        link = {
            "prev": tokens[index - 1] if index else "",
            "next": tokens[index + 1] if index + 1 < len(tokens) else "",
        }
        time_us = 1_500_000_000_000_000 + int(seconds * 1e6)
        self.rows["sample"].append(
            {"token": token, "timestamp": time_us, "scene_token": scene, **link}
        )
        for channel in self.channels:
            delay_s = self.layout.camera_delay_s.get(channel, 0.0)
            taken = _ego_pose(start, yaw, seconds + delay_s)
            self._add_sensor_data(channel, token, time_us + int(delay_s * 1e6), link, taken)
        pose = _ego_pose(start, yaw, seconds)
        for k, thing in enumerate(objects):
            self._add_annotation(f"{scene}/{k}", token, link, thing, start, seconds, index)
        return self._truth(token, pose, objects, start, seconds, index)

    def _add_sensor_data(
        self, channel: str, sample: str, time_us: int, link: dict[str, str], ego: Pose
    ) -> None:
        is_camera = channel != self.layout.spec.lidar
        token = f"{channel}/{sample}"
        width, height = self.layout.image_sizes.get(channel, IMAGE_SIZE) if is_camera else (0, 0)
        self.rows["ego_pose"].append(
            {
                "token": token,
                "timestamp": time_us,
                "translation": ego.translation_m.tolist(),
                "rotation": ego.rotation_wxyz.tolist(),
            }
        )
        self.rows["sample_data"].append(
            {
                "token": token,
                "sample_token": sample,
                "ego_pose_token": token,
                "calibrated_sensor_token": channel,
                "filename": f"samples/{channel}/{sample}.{'jpg' if is_camera else 'pcd.bin'}",
                "fileformat": "jpg" if is_camera else "pcd",
                "is_key_frame": True,
                "width": width,
                "height": height,
                "timestamp": time_us,
                **{key: f"{channel}/{other}" if other else "" for key, other in link.items()},
            }
        )

    def _add_annotation(
        self,
        instance: str,
        sample: str,
        link: dict[str, str],
        thing: _Object,
        start: np.ndarray,
        seconds: float,
        index: int,
    ) -> None:
        attribute = self.layout.spec.attribute(thing.label, thing.speed_mps)
        length, width, height = thing.size_lwh_m.tolist()
        half = thing.yaw_rad / 2
        self.rows["sample_annotation"].append(
            {
                "token": f"{instance}/{sample}",
                "sample_token": sample,
                "instance_token": instance,
                "translation": (start + thing.center(seconds)).tolist(),
                "size": [width, length, height],
                "rotation": [float(np.cos(half)), 0.0, 0.0, float(np.sin(half))],
                "num_lidar_pts": 0 if index == thing.invisible_frame else 7,
                "num_radar_pts": 0,
                "visibility_token": "4",
                "attribute_tokens": [attribute] if attribute else [],
                **{key: f"{instance}/{other}" if other else "" for key, other in link.items()},
            }
        )

    def _truth(
        self,
        token: str,
        pose: Pose,
        objects: list[_Object],
        start: np.ndarray,
        seconds: float,
        index: int,
    ) -> TrueSample:
        global_to_lidar = np.linalg.inv(pose.matrix() @ self.layout.lidar_to_ego.matrix())
        rotation = global_to_lidar[:3, :3]
        rows = []
        for thing in objects:
            center = rotation @ (start + thing.center(seconds)) + global_to_lidar[:3, 3]
            heading = rotation @ np.array([np.cos(thing.yaw_rad), np.sin(thing.yaw_rad), 0.0])
            velocity = rotation @ np.array([*thing.velocity, 0.0])
            yaw = np.arctan2(heading[1], heading[0])
            rows.append([*center, *thing.size_lwh_m, yaw, *velocity[:2]])
        count = len(objects)
        return TrueSample(
            token=token,
            lidar_to_ego=self.layout.lidar_to_ego,
            ego_to_global=pose,
            detections=Detections(
                torch.tensor(np.array(rows).reshape(count, 9)).float(),
                torch.ones(count),
                torch.tensor([thing.label for thing in objects]).long(),
            ),
            has_points=torch.tensor(
                [index != thing.invisible_frame for thing in objects], dtype=torch.bool
            ),
        )
