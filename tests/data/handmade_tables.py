"""A nuScenes-format data set small enough to check by hand: two scenes, tilted car, six cameras."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pyquaternion import Quaternion

from streampetr_vit.data.nuscenes.spec import NUSCENES

Tables = dict[str, list[dict[str, Any]]]

WIDTH, HEIGHT = 160, 90
VERSION = "v1.0-mini"
SCENES = {"scene-0061": 5, "scene-0103": 4}  # name -> frames; one of mini_train, one of mini_val
CHANNELS = ("LIDAR_TOP", *NUSCENES.cameras)
PERIOD_US = 500_000

# Tracks: category, frames in which it is annotated (None: all). The velocity rules need tracks with
# no neighbour, one neighbour, two, and gaps that are too long.
TRACKS = {
    "car": ("vehicle.car", None),
    "walker": ("human.pedestrian.adult", (0, 1)),
    "cone": ("movable_object.trafficcone", (1,)),
    "dog": ("animal", None),
    "truck_gap": ("vehicle.truck", (0, 3)),
    "bus_no_points": ("vehicle.bus.rigid", (2, 3)),
}


def _quaternion(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> list[float]:
    turns = [
        Quaternion(axis=axis, radians=angle)
        for axis, angle in (((0, 0, 1), yaw), ((0, 1, 0), pitch), ((1, 0, 0), roll))
    ]
    return (turns[0] * turns[1] * turns[2]).elements.tolist()


def make_tables() -> Tables:
    """The nine tables that the records are made from."""
    categories = sorted({category for category, _ in TRACKS.values()})
    tables: Tables = {
        "category": [{"token": f"category-{name}", "name": name} for name in categories],
        "sensor": [
            {"token": f"sensor-{c}", "channel": c, "modality": "camera" if "CAM" in c else "lidar"}
            for c in (*CHANNELS, "RADAR_FRONT")
        ],
    }
    for name in (
        "scene",
        "sample",
        "sample_data",
        "calibrated_sensor",
        "ego_pose",
        "sample_annotation",
        "instance",
    ):
        tables[name] = []
    # The later scene comes first in the tables: the order of the records is that of time.
    for number, (name, frames) in reversed(list(enumerate(SCENES.items()))):
        _add_scene(tables, name, frames, number)
    return tables


def _add_scene(tables: Tables, name: str, frames: int, number: int) -> None:
    rng = np.random.default_rng(number)
    start_us = 1_532_402_927_000_000 + number * 60_000_000
    tables["scene"].append({"token": f"{name}-token", "name": name, "nbr_samples": frames})
    for slot, channel in enumerate((*CHANNELS, "RADAR_FRONT")):
        tables["calibrated_sensor"].append(_calibration(name, slot, channel, rng))
    for frame in range(frames):
        token = f"{name}-{frame}"
        tables["sample"].append(
            {
                "token": token,
                "scene_token": f"{name}-token",
                "timestamp": start_us + frame * PERIOD_US,
                "prev": f"{name}-{frame - 1}" if frame else "",
                "next": f"{name}-{frame + 1}" if frame + 1 < frames else "",
            }
        )
        for slot, channel in enumerate((*CHANNELS, "RADAR_FRONT")):
            _add_sensor_data(tables, name, frame, slot, channel, start_us)
    for track, (category, present) in TRACKS.items():
        present = range(frames) if present is None else present
        _add_track(tables, name, track, category, list(present), rng)


def _calibration(name: str, slot: int, channel: str, rng: np.random.Generator) -> dict[str, Any]:
    token = f"{name}-{channel}"
    if "CAM" not in channel:
        rotation, intrinsic = _quaternion(-math.pi / 2, 0.01, -0.02), []
        translation = [0.94, 0.0, 1.84]
    else:
        # Optical axes: z forward, x right, y down; then turned about the car.
        optical = Quaternion(0.5, -0.5, 0.5, -0.5)
        rotation = (Quaternion(axis=(0, 0, 1), radians=1.05 * slot) * optical).elements.tolist()
        focal = 125 + float(rng.uniform(-2, 2))
        intrinsic = [[focal, 0.0, 80.5], [0.0, focal + 0.5, 47.0], [0.0, 0.0, 1.0]]
        translation = rng.uniform(-1, 2, 3).tolist()
    return {
        "token": token,
        "sensor_token": f"sensor-{channel}",
        "translation": translation,
        "rotation": rotation,
        "camera_intrinsic": intrinsic,
    }


def _add_sensor_data(
    tables: Tables, name: str, frame: int, slot: int, channel: str, start_us: int
) -> None:
    for is_key in (True, False):  # a sweep follows each key frame
        delay = -7_000 * slot if is_key else 50_000
        seconds = 1e-6 * (frame * PERIOD_US + delay)
        token = f"{name}-{frame}-{channel}-{is_key}"
        camera = "CAM" in channel
        tables["sample_data"].append(
            {
                "token": token,
                "sample_token": f"{name}-{frame}",
                "ego_pose_token": f"pose-{token}",
                "calibrated_sensor_token": f"{name}-{channel}",
                "timestamp": start_us + frame * PERIOD_US + delay,
                "is_key_frame": is_key,
                "width": WIDTH if camera else 0,
                "height": HEIGHT if camera else 0,
                "filename": f"samples/{channel}/{name}-{frame}.jpg",
            }
        )
        tables["ego_pose"].append(
            {
                "token": f"pose-{token}",
                "translation": [600 + 8 * seconds, 1600 + 3 * seconds, 0.1 * seconds],
                "rotation": _quaternion(0.4 + 0.2 * seconds, 0.01, 0.005 * seconds),
            }
        )


def _add_track(
    tables: Tables,
    name: str,
    track: str,
    category: str,
    frames: list[int],
    rng: np.random.Generator,
) -> None:
    instance = f"{name}-{track}"
    tables["instance"].append({"token": instance, "category_token": f"category-{category}"})
    start = np.array([612.0, 1612.0, 1.0]) + rng.uniform(-9, 9, 3) * (1, 1, 0.1)
    step = rng.uniform(-2, 2, 3) * (1, 1, 0.05)
    size = rng.uniform(0.5, 5, 3).tolist()
    yaw = float(rng.uniform(-3, 3))
    for place, frame in enumerate(frames):
        earlier = frames[place - 1] if place else None
        later = frames[place + 1] if place + 1 < len(frames) else None
        tables["sample_annotation"].append(
            {
                "token": f"{instance}-{frame}",
                "sample_token": f"{name}-{frame}",
                "instance_token": instance,
                "translation": (start + step * frame).tolist(),
                "size": size,
                "rotation": _quaternion(yaw + 0.1 * frame, 0.02, -0.01),
                "prev": "" if earlier is None else f"{instance}-{earlier}",
                "next": "" if later is None else f"{instance}-{later}",
                "num_lidar_pts": 0 if "no_points" in track else 3,
                "num_radar_pts": 0,
            }
        )


def write_tables(tables: Tables, root: Path, version: str = VERSION) -> Path:
    """Writes the tables below a data root, in the way the official ones are laid out."""
    folder = root / version
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))
    return root


def write_pictures(tables: Tables, root: Path) -> None:
    """Writes the JPEG files of the key frames: smooth colours, different in each picture."""
    for number, row in enumerate(tables["sample_data"]):
        if not row["is_key_frame"] or row["width"] == 0:
            continue
        small = np.random.default_rng(number).integers(0, 256, (3, 5, 3), dtype=np.uint8)
        path = root / row["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (row["width"], row["height"])
        picture = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), picture)


def row_by_token(rows: list[dict[str, Any]], token: str) -> dict[str, Any]:
    """The record of a token."""
    return next(row for row in rows if row["token"] == token)
