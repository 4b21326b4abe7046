"""Small nuScenes tables without picture files, whose ground truth is known in closed form.

Every class has several boxes in every frame, boxes of one class keep well apart, and everything
moves at constant velocity, so that the devkit's velocities are exact.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streampetr_vit.evaluation.result_format import ATTRIBUTES
from streampetr_vit.structures import CAMERA_NAMES, CLASS_NAMES, Detections, Pose

VERSION = "v1.0-trainval"
# Scenes of the official val split.
SCENES = ("scene-0003", "scene-0012", "scene-0013", "scene-0014")
CATEGORIES = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "construction_vehicle": "vehicle.construction",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "barrier": "movable_object.barrier",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
}
LIDAR_TO_EGO = Pose(np.array([0.94, 0.0, 1.84]), np.array([np.sqrt(0.5), 0.0, 0.0, -np.sqrt(0.5)]))
# All six cameras look ahead: only the lidar matters to the metric.
CAMERA_TO_EGO = Pose(np.array([1.7, 0.0, 1.5]), np.array([0.5, -0.5, 0.5, -0.5]))
CAMERA_INTRINSIC = [[316.0, 0.0, 202.0], [0.0, 316.0, 122.0], [0.0, 0.0, 1.0]]
SAME_CLASS_SPACING_M = 10.0
FRAME_SECONDS = 0.5


@dataclass(frozen=True)
class TrueSample:
    """Ground truth of one sample in the lidar frame, with the scores 1."""

    token: str
    lidar_to_ego: Pose
    ego_to_global: Pose
    detections: Detections
    has_points: torch.Tensor

    def sample_dict(self) -> dict[str, Any]:
        """The part of the mapper's sample dict that the evaluator reads."""
        return {
            "sample_token": self.token,
            "lidar_to_ego": self.lidar_to_ego,
            "ego_to_global": self.ego_to_global,
        }

    def visible(self) -> Detections:
        """The boxes that the official evaluation scores: those with lidar or radar points."""
        d, kept = self.detections, self.has_points
        return Detections(d.boxes[kept], d.scores[kept], d.labels[kept])


def write_tables(
    root: Path,
    scenes: Sequence[str] = SCENES,
    version: str = VERSION,
    frames: int = 4,
    boxes_per_class: int = 4,
    classes: Sequence[str] = CLASS_NAMES,
    lidar_to_ego: Pose = LIDAR_TO_EGO,
    seed: int = 0,
) -> list[TrueSample]:
    """Writes the 13 tables and returns the ground truth, frame by frame, scene after scene."""
    tables = _Tables(lidar_to_ego)
    truth = []
    for index, scene in enumerate(scenes):
        rng = np.random.default_rng([seed, index])
        truth += tables.add_scene(scene, frames, _objects(rng, boxes_per_class, classes), rng)
    (root / "maps").mkdir(parents=True, exist_ok=True)
    (root / "maps" / "empty.png").touch()
    (root / version).mkdir()
    for name, rows in tables.rows.items():
        (root / version / f"{name}.json").write_text(json.dumps(rows))
    return truth


@dataclass
class _Object:
    class_name: str
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


def _objects(rng: np.random.Generator, per_class: int, classes: Sequence[str]) -> list[_Object]:
    objects = []
    for name in classes:
        starts: list[np.ndarray] = []
        while len(starts) < per_class:
            start = np.array([*rng.uniform(-22, 22, size=2), rng.uniform(0.5, 1.5)])
            # Room for the motion of both boxes.
            if all(np.hypot(*(start - other)[:2]) > SAME_CLASS_SPACING_M + 6 for other in starts):
                starts.append(start)
        for k, start in enumerate(starts):
            stands = k == 0 or name in ("barrier", "traffic_cone")
            objects.append(
                _Object(
                    class_name=name,
                    start_m=start,
                    size_lwh_m=rng.uniform([1.5, 0.5, 1.0], [5.0, 1.4, 3.0]),
                    yaw_rad=rng.uniform(-np.pi, np.pi),
                    # Movers stay within 3 m of their start; their mean speed exceeds 1 m/s.
                    speed_mps=0.0 if stands else rng.uniform(1.6, 1.9),
                    invisible_frame=int(rng.integers(4)) if k == 1 else None,
                )
            )
    return objects


def _sensor(channel: str) -> dict[str, Any]:
    modality = "lidar" if channel == "LIDAR_TOP" else "camera"
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
    def __init__(self, lidar_to_ego: Pose) -> None:
        self.lidar_to_ego = lidar_to_ego
        attributes = sorted({name for pair in ATTRIBUTES.values() for name in pair if name})
        self.rows: dict[str, list[dict[str, Any]]] = {
            "category": [{"token": c, "name": c, "description": ""} for c in CATEGORIES.values()],
            "attribute": [{"token": a, "name": a, "description": ""} for a in attributes],
            "visibility": [{"token": "4", "level": "v80-100", "description": ""}],
            "sensor": [_sensor(channel) for channel in ("LIDAR_TOP", *CAMERA_NAMES)],
            "calibrated_sensor": [
                _calibration("LIDAR_TOP", lidar_to_ego, []),
                *(_calibration(name, CAMERA_TO_EGO, CAMERA_INTRINSIC) for name in CAMERA_NAMES),
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
            category = CATEGORIES[thing.class_name]
            self.rows["instance"].append({"token": f"{name}/{k}", "category_token": category})
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
        forward = np.array([np.cos(yaw), np.sin(yaw), 0.0])
        pose = Pose(
            start + 3.0 * seconds * forward,
            np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]),
        )
        self.rows["ego_pose"].append(
            {
                "token": token,
                "timestamp": time_us,
                "translation": pose.translation_m.tolist(),
                "rotation": pose.rotation_wxyz.tolist(),
            }
        )
        for channel in ("LIDAR_TOP", *CAMERA_NAMES):
            self._add_sensor_data(channel, token, time_us, link)
        for k, thing in enumerate(objects):
            self._add_annotation(f"{scene}/{k}", token, link, thing, start, seconds, index)
        return self._truth(token, pose, objects, start, seconds, index)

    def _add_sensor_data(
        self, channel: str, sample: str, time_us: int, link: dict[str, str]
    ) -> None:
        is_camera = channel != "LIDAR_TOP"
        self.rows["sample_data"].append(
            {
                "token": f"{channel}/{sample}",
                "sample_token": sample,
                "ego_pose_token": sample,
                "calibrated_sensor_token": channel,
                "filename": f"samples/{channel}/{sample}.{'jpg' if is_camera else 'pcd.bin'}",
                "fileformat": "jpg" if is_camera else "pcd",
                "is_key_frame": True,
                "width": 400 if is_camera else 0,
                "height": 225 if is_camera else 0,
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
        attribute = ATTRIBUTES[thing.class_name][0 if thing.speed_mps > 0.2 else 1]
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
        global_to_lidar = np.linalg.inv(pose.matrix() @ self.lidar_to_ego.matrix())
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
            lidar_to_ego=self.lidar_to_ego,
            ego_to_global=pose,
            detections=Detections(
                torch.tensor(np.array(rows).reshape(count, 9)).float(),
                torch.ones(count),
                torch.tensor([CLASS_NAMES.index(t.class_name) for t in objects]).long(),
            ),
            has_points=torch.tensor(
                [index != thing.invisible_frame for thing in objects], dtype=torch.bool
            ),
        )
