"""Writes small folders of drives."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

WIDTH, HEIGHT = 64, 48
CAMERAS = ("front", "left")
_LOOKS_AHEAD = [[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]]


def rig_values(cameras: Sequence[str] = CAMERAS) -> dict[str, Any]:
    """What rig.yaml holds."""
    camera = {
        "width": WIDTH,
        "height": HEIGHT,
        "intrinsics": [[50, 0, WIDTH / 2], [0, 50, HEIGHT / 2], [0, 0, 1]],
        "camera_to_vehicle": _LOOKS_AHEAD,
    }
    return {"cameras": {name: json.loads(json.dumps(camera)) for name in cameras}}


def rows_of_drive(count: int, scenes: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of frames.csv: a car that drives along x at 10 m/s, a frame each 0.5 s."""
    rows = []
    for index in range(count):
        row = {"timestamp_s": 1e9 + 0.5 * index, "x": 5.0 * index, "y": 1.0, "z": 0.0}
        row |= {"qw": 1.0, "qx": 0.0, "qy": 0.0, "qz": 0.0}
        if scenes:
            row["scene"] = scenes[index * len(scenes) // count]
        rows.append(row)
    return rows


def write_csv(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes frames.csv; the keys of the first row are the header."""
    with (folder / "frames.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def picture(index: int, camera: str = "front") -> np.ndarray:
    """(48, 64, 3) uint8 RGB, another one for each frame and camera."""
    rng = np.random.default_rng([index, len(camera)])
    return np.full((HEIGHT, WIDTH, 3), rng.integers(30, 220, 3), np.uint8)


def write_drive(
    folder: Path, count: int = 4, cameras: Sequence[str] = CAMERAS, scenes: Sequence[str] = ()
) -> Path:
    """A drive of which every frame has its pictures as CAMERA/FRAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rig.yaml").write_text(yaml.safe_dump(rig_values(cameras)))
    write_csv(folder, rows_of_drive(count, scenes))
    for camera in cameras:
        (folder / camera).mkdir()
        for index in range(count):
            image = picture(index, camera)
            cv2.imwrite(str(folder / camera / f"{index:06d}.png"), image[:, :, ::-1])
    return folder


def write_video(path: Path, count: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """A video of `picture(0)`, `picture(1)` ..."""
    code = cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, 10.0, size)
    for index in range(count):
        writer.write(cv2.resize(picture(index)[:, :, ::-1], size))
    writer.release()
