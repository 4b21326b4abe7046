"""Tables as large as the real data set's, without pictures: to measure loading, not to train.

The numbers per scene are those of nuScenes v1.0-trainval: twelve sensors, all sweeps between the
keyframes, about 35 annotations per sample. Rows are written as they are made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from tqdm import tqdm

from streampetr_vit.errors import FolderTakenError, InputError
from synthetic_nuscenes import tables
from synthetic_nuscenes.categories import ATTRIBUTE_NAMES, CATEGORY_NAMES
from synthetic_nuscenes.config import FRAME_PERIOD_S
from synthetic_nuscenes.rig import CAMERA_NAMES, make_rig, quaternion_from_yaw
from synthetic_nuscenes.scene import EPOCH_US, SCENE_SPACING_US
from synthetic_nuscenes.tables import LIDAR_CHANNEL, Row

VERSION = "v1.0-trainval"
KEYFRAMES = 40
INSTANCES = 75
RADAR_NAMES = (
    "RADAR_FRONT",
    "RADAR_FRONT_LEFT",
    "RADAR_FRONT_RIGHT",
    "RADAR_BACK_LEFT",
    "RADAR_BACK_RIGHT",
)
# Records of sample_data from one keyframe to the next: 12, 20 and 14 Hz.
RECORDS_PER_KEYFRAME = (
    dict.fromkeys(CAMERA_NAMES, 6) | {LIDAR_CHANNEL: 10} | dict.fromkeys(RADAR_NAMES, 7)
)


class _TableWriter:
    """A JSON list written row by row, under a temporary name until it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".part")

    def __enter__(self) -> _TableWriter:
        self._file = self._temporary.open("w")
        self._separator = "[\n"
        return self

    def extend(self, rows: list[Row]) -> None:
        for row in rows:
            self._file.write(self._separator + json.dumps(row))
            self._separator = ",\n"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.write("[]" if self._separator == "[\n" else "\n]")
        self._file.close()
        if kind is None:
            os.replace(self._temporary, self._path)


class _Tokens:
    """Unique tokens without hashing: an odd multiple of a counter, modulo 2^128.

    They are in no order, like the real ones, and cost a tenth of a hash.
    """

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> list[str]:
        start, self._next = self._next + 1, self._next + count
        odd = 0x9E3779B97F4A7C15F39CC0605CEDC835
        return [f"{i * odd % (1 << 128):032x}" for i in range(start, start + count)]


class _ScaleScene:
    """The rows of one scene; `rows` makes them table by table."""

    def __init__(self, name: str, index: int, seed: int, tokens: _Tokens) -> None:
        self.rng = np.random.default_rng([seed, index])
        self.name, self.tokens = name, tokens
        self.start_us = EPOCH_US + index * SCENE_SPACING_US
        self.speed_mps = float(self.rng.uniform(2.0, 12.0))
        self.yaw_rate = float(self.rng.uniform(-0.05, 0.05))
        self.start = self.rng.uniform(300, 1800, size=2)
        self.scene, self.log = tokens.take(2)
        self.samples = tokens.take(KEYFRAMES)

    def rows(self) -> Iterator[tuple[str, list[Row]]]:
        """Pairs of a table's name and rows of it."""
        last = self.samples[-1]
        log = {"token": self.log, "logfile": self.name, "vehicle": "scale", "location": "scale"}
        yield "log", [{**log, "date_captured": "2020-09-13"}]
        scene = {"token": self.scene, "log_token": self.log, "nbr_samples": KEYFRAMES}
        scene |= {"first_sample_token": self.samples[0], "last_sample_token": last}
        yield "scene", [{**scene, "name": self.name, "description": "Tables only."}]
        yield "sample", tables.link([self._sample(i) for i in range(KEYFRAMES)])
        calibrations = self._calibrations()
        yield "calibrated_sensor", list(calibrations.values())
        for channel, row in calibrations.items():
            yield from self._records(channel, row)
        for _ in range(INSTANCES):
            yield from self._instance()

    def _sample(self, index: int) -> Row:
        timestamp = self.start_us + round(index * FRAME_PERIOD_S * 1e6)
        token = self.samples[index]
        return {"token": token, "timestamp": timestamp, "scene_token": self.scene}

    def _calibrations(self) -> dict[str, Row]:
        cameras = make_rig(self.rng, 1600, 900)
        found = self.tokens.take(len(RECORDS_PER_KEYFRAME))
        rows = {
            camera.name: tables.calibration_row(
                token, camera.name, camera.translation_m, camera.rotation_wxyz, camera.intrinsic
            )
            for token, camera in zip(found, cameras, strict=False)
        }
        rows[LIDAR_CHANNEL] = tables.lidar_calibration_row(found[len(cameras)])
        for token, channel in zip(found[len(cameras) + 1 :], RADAR_NAMES, strict=True):
            rows[channel] = tables.calibration_row(token, channel, (3.4, 0, 0.5), (1, 0, 0, 0), [])
        return rows

    def _records(self, channel: str, calibration: Row) -> Iterator[tuple[str, list[Row]]]:
        """Rows of sample_data and ego_pose of one sensor: keyframes and sweeps in time order."""
        per_key = RECORDS_PER_KEYFRAME[channel]
        count = (KEYFRAMES - 1) * per_key + 1
        time = np.arange(count) * (FRAME_PERIOD_S / per_key) - (channel in CAMERA_NAMES) * 0.03
        yaw = self.yaw_rate * time
        xy = self.start + np.stack((np.cos(yaw), np.sin(yaw)), 1) * self.speed_mps * time[:, None]
        stamps = (self.start_us + np.round(time * 1e6).astype(int)).tolist()
        tokens = self.tokens.take(count)
        is_camera = channel in CAMERA_NAMES
        ending = "jpg" if is_camera else ("pcd.bin" if channel == LIDAR_CHANNEL else "pcd")
        rows = []
        for i, (token, stamp) in enumerate(zip(tokens, stamps, strict=True)):
            folder = "sweeps" if i % per_key else "samples"
            rows.append(
                {
                    "token": token,
                    "sample_token": self.samples[-(-i // per_key)],
                    "ego_pose_token": token,
                    "calibrated_sensor_token": calibration["token"],
                    "timestamp": stamp,
                    "fileformat": ending[:3],
                    "is_key_frame": i % per_key == 0,
                    "height": 900 if is_camera else 0,
                    "width": 1600 if is_camera else 0,
                    "filename": f"{folder}/{channel}/{self.name}__{channel}__{stamp}.{ending}",
                }
            )
        yield "sample_data", tables.link(rows)
        columns = zip(tokens, stamps, xy, yaw.tolist(), strict=True)
        yield "ego_pose", [tables.pose_row(*row) for row in columns]

    def _instance(self) -> Iterator[tuple[str, list[Row]]]:
        """An instance and its annotations: a random run of frames at constant velocity."""
        rng = self.rng
        length = int(min(2 + rng.exponential(20.0), KEYFRAMES))
        first = int(rng.integers(0, KEYFRAMES - length + 1))
        category = CATEGORY_NAMES[int(rng.integers(len(CATEGORY_NAMES)))]
        names = _attributes_of(category)
        attribute = [tables.token("attribute", str(rng.choice(names)))] if names else []
        yaw, speed = float(rng.uniform(-3.1, 3.1)), float(rng.uniform(0, 10) * (rng.random() < 0.4))
        direction = np.array([np.cos(yaw), np.sin(yaw)])
        time = np.arange(length)[:, None] * FRAME_PERIOD_S
        xy = self.start + rng.uniform(-60, 60, size=2) + direction * speed * time
        size = tables.metres(rng.uniform((0.5, 0.5, 1.0), (2.8, 8.0, 3.5)))
        rotation = tables.quaternion(quaternion_from_yaw(yaw))
        points = rng.geometric(0.05, size=(length, 2)) - 1
        visibility = rng.integers(1, 5, size=length)
        instance, *tokens = self.tokens.take(length + 1)
        rows = [
            {
                "token": tokens[i],
                "sample_token": self.samples[first + i],
                "instance_token": instance,
                "visibility_token": str(visibility[i]),
                "attribute_tokens": attribute,
                "translation": tables.metres((*xy[i], size[2] / 2)),
                "size": size,
                "rotation": rotation,
                "num_lidar_pts": int(points[i, 0]),
                "num_radar_pts": int(points[i, 1]) // 8,
            }
            for i in range(length)
        ]
        yield "sample_annotation", tables.link(rows)
        row: Row = {"token": instance, "category_token": tables.token("category", category)}
        row |= {"nbr_annotations": length, "first_annotation_token": tokens[0]}
        yield "instance", [{**row, "last_annotation_token": tokens[-1]}]


def _attributes_of(category: str) -> list[str]:
    """Names of the attributes that an object of the category may have."""
    if category in ("vehicle.bicycle", "vehicle.motorcycle"):
        return [name for name in ATTRIBUTE_NAMES if name.startswith("cycle.")]
    group = category.split(".")[-2 if category.startswith("human") else 0]
    return [name for name in ATTRIBUTE_NAMES if name.startswith(f"{group}.")]


def _scene_names(count: int) -> list[str]:
    from nuscenes.utils import splits  # slow to import: pulls matplotlib

    names = sorted([*splits.train, *splits.val])
    if not 1 <= count <= len(names):
        raise InputError(f"scenes = {count} is not allowed: choose 1..{len(names)}")
    return names[:count]


def write_scale_tables(out: Path, scenes: int = 850, seed: int = 0) -> Path:
    """Writes the thirteen tables of a data set of real size, and no pictures.

    850 scenes give the size of nuScenes v1.0-trainval: 34,000 samples, 2.7 million rows of
    sample_data and of ego_pose, 1.2 million annotations, about 3 GB of JSON.

    Args:
        out: data root; `out/v1.0-trainval` must not hold tables.
        scenes: 1..850, named after the official train and val scenes in ascending order.
        seed: of all random choices.

    Returns:
        The version folder.

    Raises:
        FolderTakenError: the version folder holds tables.
    """
    folder = Path(out) / VERSION
    if any(folder.glob("*.json")):
        raise FolderTakenError(f"{folder} holds tables already; choose another folder or remove it")
    names = _scene_names(scenes)
    folder.mkdir(parents=True, exist_ok=True)
    tokens, logs = _Tokens(), []
    static = tables.static_tables()
    static["sensor"] += [
        {"token": tables.sensor_token(name), "channel": name, "modality": "radar"}
        for name in RADAR_NAMES
    ]
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(_TableWriter(folder / f"{name}.json"))
            for name in tables.TABLE_NAMES
        }
        for name, rows in static.items():
            writers[name].extend(rows)
        for index, name in enumerate(tqdm(names, desc="tables of scenes", unit="scene")):
            scene = _ScaleScene(name, index, seed, tokens)
            logs.append(scene.log)
            for table, rows in scene.rows():
                writers[table].extend(rows)
        map_row = {"token": tables.token("map"), "category": "semantic_prior"}
        writers["map"].extend([{**map_row, "filename": "maps/scale.png", "log_tokens": logs}])
    return folder
