"""Scenes of a nuScenes-format set as the folder of a drive, as a person writes one for a car."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streampetr_vit.data.nuscenes.build_records import version_folder
from streampetr_vit.data.nuscenes.columns import read_samples
from streampetr_vit.data.nuscenes.picture_files import picture_path
from streampetr_vit.data.nuscenes.sensors import SensorData, read_sensor_data
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.data.nuscenes.tables import TableFolder
from streampetr_vit.errors import InputError, OutputError
from streampetr_vit.files import replacing
from streampetr_vit.inference.sources.frame_columns import PLACE, QUATERNION
from streampetr_vit.structures import Camera, DatasetSpec, Pose, Rig
from streampetr_vit.texts import name_list

_POSE = (*PLACE, *QUATERNION)


def export_drive(
    root: str | os.PathLike[str],
    version: str,
    scene_names: Sequence[str],
    out: str | os.PathLike[str],
    spec: DatasetSpec = NUSCENES,
) -> int:
    """Writes rig.yaml, frames.csv and the pictures of some scenes of one car.

    Nothing is lost: the poses of the vehicle when each camera took its picture are there too.

    Args:
        root, version: of the set.
        scene_names: names of scenes.
        out: the folder, which must not exist.
        spec: the cameras, and the frame of the network.

    Returns:
        The number of frames.

    Raises:
        InputError: a scene does not exist, or the scenes have cameras in different places.
        OutputError: the folder is there already, or cannot be written.
    """
    root, out = Path(root).expanduser().resolve(), Path(out)
    tables = TableFolder(version_folder(root, version))
    samples = read_samples(tables)
    names = np.array(samples.scene_names)[samples.scene_of_frame]  # (S,)
    missing = [name for name in scene_names if name not in samples.scene_names]
    if missing or not scene_names:
        raise InputError(
            f"scenes {name_list(missing)} are not in {root / version}, which has "
            f"{name_list(samples.scene_names)}"
        )
    rows = np.flatnonzero(np.isin(names, scene_names))
    sensors = read_sensor_data(tables, samples, spec)
    rig = _rig(sensors, rows, spec)
    if out.exists():
        raise OutputError(f"{out} exists already: name another folder, or remove it")
    rig.save(out / "rig.yaml")
    frames = []
    for number, row in enumerate(rows.tolist()):
        pictures = _copy_pictures(root, sensors.paths[row, 1:], spec.cameras, out, number)
        time_s = repr(samples.timestamp_us[row].item() / 1e6)
        poses = {"": sensors.ego_to_global[row, 0]}
        poses |= {f"{c}.": sensors.ego_to_global[row, 1 + n] for n, c in enumerate(spec.cameras)}
        frame = {"frame": f"{number:06d}", "scene": names[row], "timestamp_s": time_s, **pictures}
        for prefix, pose in poses.items():
            frame |= {f"{prefix}{c}": repr(v) for c, v in zip(_POSE, pose.tolist(), strict=True)}
        frames.append(frame)
    with (
        replacing(out / "frames.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, list(frames[0]))
        writer.writeheader()
        writer.writerows(frames)
    return len(frames)


def _rig(sensors: SensorData, rows: np.ndarray, spec: DatasetSpec) -> Rig:
    """The cameras of the car, which are the same in all rows."""
    first = rows[0]
    for what in (sensors.sensor_to_ego, sensors.intrinsics, sensors.image_size):
        if (what[rows] != what[first]).any():
            raise InputError(
                "the scenes have cameras in different places, or other lenses: export them one by "
                "one, each into a folder of its own"
            )
    cameras = [
        Camera(
            name,
            *sensors.image_size[first, slot].tolist(),
            sensors.intrinsics[first, slot],
            Pose.of_row(sensors.sensor_to_ego[first, slot]),
        )
        for slot, name in enumerate(spec.cameras, start=1)
    ]
    return Rig(cameras, Pose.of_row(sensors.sensor_to_ego[first, 0]))


def _copy_pictures(
    root: Path, paths: Sequence[str], cameras: Sequence[str], out: Path, number: int
) -> dict[str, str]:
    """Copies the pictures of a frame; camera -> path below the folder."""
    copied = {}
    for camera, path in zip(cameras, paths, strict=True):
        source = picture_path(root, str(path))
        copied[camera] = f"{camera}/{number:06d}{source.suffix}"
        with replacing(out / copied[camera]) as temporary:
            shutil.copyfile(source, temporary)
    return copied
