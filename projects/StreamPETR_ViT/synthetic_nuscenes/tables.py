"""Rows of the thirteen nuScenes tables, and writing them.

Conventions of nuScenes: quaternions are (w, x, y, z), sizes (width, length, height), annotation
translations box centres in the global frame, timestamps integer microseconds, links "" at ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthetic_nuscenes.categories import ATTRIBUTE_NAMES, CATEGORY_NAMES, VISIBILITY_LEVELS
from synthetic_nuscenes.files import write_json
from synthetic_nuscenes.rig import (
    CAMERA_NAMES,
    LIDAR_CHANNEL,
    LIDAR_TRANSLATION,
    LIDAR_YAW_RAD,
    quaternion_from_yaw,
)

TABLE_NAMES = (
    "category",
    "attribute",
    "visibility",
    "instance",
    "sensor",
    "calibrated_sensor",
    "ego_pose",
    "log",
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "map",
)

Row = dict[str, Any]


def token(*parts: object) -> str:
    """A stable token of 32 hexadecimal digits, different for different parts."""
    # Not for security: MD5 has the length of nuScenes's tokens.
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def metres(values: Iterable[float]) -> list[float]:
    """Numbers rounded to 0.1 mm; the same on every numpy version."""
    # + 0.0 turns -0.0 into 0.0.
    return [round(float(v), 4) + 0.0 for v in values]


def quaternion(values: Iterable[float]) -> list[float]:
    """A quaternion rounded to 1e-8."""
    return [round(float(v), 8) + 0.0 for v in values]


def sensor_token(channel: str) -> str:
    """Token of a sensor; the same in every data set."""
    return token("sensor", channel)


def static_tables(
    channels: Sequence[str] = (*CAMERA_NAMES, LIDAR_CHANNEL),
    categories: Iterable[str] = CATEGORY_NAMES,
) -> dict[str, list[Row]]:
    """Tables that no scene adds to: category, attribute, visibility, sensor.

    Args:
        channels: of the sensors; all but LIDAR_TOP are cameras.
        categories: names; one that comes twice makes one row.
    """
    return {
        "category": [
            {"token": token("category", n), "name": n, "description": f"Synthetic {n}.", "index": i}
            for i, n in enumerate(dict.fromkeys(categories))
        ],
        "attribute": [
            {"token": token("attribute", n), "name": n, "description": f"Synthetic {n}."}
            for n in ATTRIBUTE_NAMES
        ],
        "visibility": [
            {"token": level, "level": name, "description": f"Share of visible pixels {name[1:]} %."}
            for level, name in VISIBILITY_LEVELS
        ],
        "sensor": [
            {
                "token": sensor_token(channel),
                "channel": channel,
                "modality": "lidar" if channel == LIDAR_CHANNEL else "camera",
            }
            for channel in channels
        ],
    }


def calibration_row(
    row_token: str,
    channel: str,
    translation: Sequence[float],
    rotation_wxyz: Sequence[float] | np.ndarray,
    intrinsic: list[list[float]],
) -> Row:
    """A row of calibrated_sensor; `intrinsic` is [] for the lidar."""
    return {
        "token": row_token,
        "sensor_token": sensor_token(channel),
        "translation": metres(translation),
        "rotation": quaternion(rotation_wxyz),
        "camera_intrinsic": intrinsic,
    }


def lidar_calibration_row(row_token: str) -> Row:
    """The calibrated_sensor row of LIDAR_TOP."""
    rotation = quaternion_from_yaw(LIDAR_YAW_RAD)
    return calibration_row(row_token, LIDAR_CHANNEL, LIDAR_TRANSLATION, rotation, [])


def pose_row(row_token: str, timestamp_us: int, xy_m: np.ndarray, yaw_rad: float) -> Row:
    """A row of ego_pose for a car on flat ground."""
    return {
        "token": row_token,
        "timestamp": int(timestamp_us),
        "rotation": quaternion(quaternion_from_yaw(yaw_rad)),
        "translation": metres((*xy_m, 0.0)),
    }


def link(rows: list[Row]) -> list[Row]:
    """Sets prev and next of rows that follow one another; returns the rows."""
    tokens = ["", *(row["token"] for row in rows), ""]
    for i, row in enumerate(rows):
        row["prev"], row["next"] = tokens[i], tokens[i + 2]
    return rows


def write_tables(folder: Path, tables: dict[str, list[Row]]) -> None:
    """Writes all thirteen tables.

    Args:
        folder: version folder, made if absent.
        tables: rows per table name.

    Raises:
        ValueError: a table is missing or unknown.
    """
    if set(tables) != set(TABLE_NAMES):
        wrong = sorted(set(tables) ^ set(TABLE_NAMES))
        raise ValueError(f"tables missing or unknown: {wrong}; needed are {list(TABLE_NAMES)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLE_NAMES:
        write_json(folder / f"{name}.json", tables[name])
