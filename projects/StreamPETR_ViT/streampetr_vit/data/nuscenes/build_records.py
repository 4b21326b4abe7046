"""nuScenes tables -> `FrameRecords`, once; afterwards the cache file is opened.

Source: the record definitions of nuScenes (devkit 1.2) and of StreamPETR's info files: box frame,
yaw, velocity and the camera-to-lidar transform with compensated ego motion.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from iopath.common.file_io import file_lock

from streampetr_vit.data.nuscenes.cache import CacheError, fingerprint, write_arrays
from streampetr_vit.data.nuscenes.category_names import check_categories
from streampetr_vit.data.nuscenes.columns import (
    Annotations,
    Samples,
    read_annotations,
    read_samples,
)
from streampetr_vit.data.nuscenes.records import FrameRecords
from streampetr_vit.data.nuscenes.sensors import SensorData, read_sensor_data
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.data.nuscenes.tables import TableFolder, garbage_collection_paused
from streampetr_vit.errors import MissingFileError, OutputError
from streampetr_vit.progress import Progress
from streampetr_vit.structures import DatasetSpec
from streampetr_vit.structures.pose import rotation_of

_LOG = logging.getLogger(__name__)

TABLES = (
    "scene",
    "sample",
    "sample_data",
    "calibrated_sensor",
    "sensor",
    "ego_pose",
    "sample_annotation",
    "instance",
    "category",
)


def load_records(
    root: str | os.PathLike[str],
    version: str,
    scene_names: Sequence[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    spec: DatasetSpec = NUSCENES,
) -> FrameRecords:
    """Opens the records of a nuScenes-format data set, building their cache first if needed.

    Args:
        root: folder that holds `samples/` and the version folder.
        version: name of the version folder, for example "v1.0-trainval".
        scene_names: scenes to keep; None keeps all.
        cache_dir: folder of the cache file; by default `<root>/.streampetr_vit`, or the user's
            cache folder where the root cannot be written.
        spec: its classes and cameras.

    Raises:
        MissingFileError: the root, the version or a table is missing.
        TableError: a table is not as nuScenes defines it.
        InputError: a scene does not exist, or the annotations have no category of `spec`.
    """
    root = Path(root).expanduser().resolve()
    folder = version_folder(root, version)
    files = _table_files(folder)
    # Classes are no part of it: the cache holds categories, and labels are made at opening.
    key = fingerprint(files, repr((spec.lidar, spec.cameras, spec.lidar_to_ego)))
    path = _cache_path(root, f"{version}.{key}.safetensors", cache_dir)
    records = _open_cache(path, root, spec, key)
    if records is None:
        # Of several processes of one machine or shared folder, one builds and the others wait.
        with file_lock(str(path)):
            records = _open_cache(path, root, spec, key)
            if records is None:
                build_cache(folder, path, spec, key)
                records = FrameRecords(path, root, spec)
    check_categories(records, folder)
    return records if scene_names is None else records.select_scenes(scene_names)


def _table_files(folder: Path) -> list[Path]:
    return [file for table in TABLES if (file := folder / f"{table}.json").is_file()]


def version_folder(root: Path, version: str) -> Path:
    """The folder of a version's tables.

    Raises:
        MissingFileError: naming what exists, if the root or the version does not.
    """
    if not root.is_dir():
        raise MissingFileError(
            f"data root {root} does not exist. Point DETECTRON2_DATASETS (its subfolder nuscenes) "
            "or the config's dataset root at the folder that holds samples/ and v1.0-*/, or make a "
            "synthetic set with tools/make_synthetic_nuscenes.py"
        )
    folder = root / version
    # A path would end up in the name of the cache file.
    if not version or Path(version).name != version or not folder.is_dir():
        found = sorted(path.parent.name for path in root.glob("*/scene.json"))
        raise MissingFileError(
            f"version {version!r} is no folder of {root}; versions there: {found or 'none'}"
        )
    return folder


def build_cache(folder: Path, path: Path, spec: DatasetSpec, key: str) -> None:
    """Reads the tables of a version folder and writes the cache file `path`."""
    started = time.perf_counter()
    total_bytes = sum(file.stat().st_size for file in _table_files(folder))
    with garbage_collection_paused(), Progress("tables", total_bytes, "B") as bar:
        tables = TableFolder(folder, progress=bar.update)
        samples = read_samples(tables)
        sensors = read_sensor_data(tables, samples, spec)
        annotations = read_annotations(tables, samples)
    arrays = record_arrays(samples, sensors, annotations)
    metadata = {
        "version": folder.name,
        "has_annotations": str(len(annotations) > 0),
        "categories": json.dumps(annotations.category_names),
        "key": key,
    }
    write_arrays(path, arrays, metadata)
    counts = f"{len(samples.scene_names)} scenes, {len(samples.tokens)} samples"
    size = f"{path} ({path.stat().st_size / 1e6:.1f} MB)"
    seconds = time.perf_counter() - started
    message = "read %s in %.1f s: %s, %d boxes; cached as %s"
    _LOG.info(message, folder, seconds, counts, len(annotations), size)


def record_arrays(
    samples: Samples, sensors: SensorData, annotations: Annotations
) -> dict[str, np.ndarray]:
    """The columns of `FrameRecords`, by name."""
    # The reference is channel 0, the cameras follow.
    lidar_to_ego, ego_to_global = sensors.sensor_to_ego[:, 0], sensors.ego_to_global[:, 0]
    # By frame, so that a frame's boxes are one slice; in table order inside a frame.
    order = np.argsort(annotations.frame, kind="stable")
    boxes, rotation = _lidar_boxes(annotations, samples.timestamp_us, lidar_to_ego, ego_to_global)
    offsets = np.searchsorted(annotations.frame[order], np.arange(len(samples.tokens) + 1))
    return {
        "token": _bytes(samples.tokens),
        "timestamp_us": samples.timestamp_us,
        "scene_of_frame": samples.scene_of_frame,
        "scene_token": _bytes(samples.scene_tokens),
        "scene_name": _bytes(samples.scene_names),
        "scene_offsets": samples.scene_offsets.astype(np.int64),
        "lidar_to_ego": lidar_to_ego,
        "ego_to_global": ego_to_global,
        "camera_path": _bytes(sensors.paths[:, 1:]),
        "camera_timestamp_us": sensors.timestamp_us[:, 1:],
        "camera_to_lidar": _camera_to_lidar(sensors),
        "camera_intrinsics": sensors.intrinsics[:, 1:],
        "image_size": sensors.image_size[:, 1:],
        "gt_boxes": boxes[order],
        "gt_rotation": rotation[order],
        "gt_category": annotations.category[order],
        "num_lidar_pts": annotations.num_lidar_pts[order],
        "num_radar_pts": annotations.num_radar_pts[order],
        "instance": annotations.instance[order],
        "box_offsets": offsets.astype(np.int64),
    }


def _camera_to_lidar(sensors: SensorData) -> np.ndarray:
    """(S, N, 4, 4): camera -> ego at the camera's time -> global -> ego at lidar time -> lidar."""
    # (S, 1, ...) of the lidar, (S, N, ...) of the cameras.
    rotation_le, translation_le = _rotation_translation(sensors.sensor_to_ego[:, :1])
    rotation_eg, translation_eg = _rotation_translation(sensors.ego_to_global[:, :1])
    rotation_ce, translation_ce = _rotation_translation(sensors.sensor_to_ego[:, 1:])
    rotation_cg, translation_cg = _rotation_translation(sensors.ego_to_global[:, 1:])
    to_lidar = np.swapaxes(rotation_eg @ rotation_le, -1, -2)  # the inverse: global -> lidar
    in_ego = (rotation_cg @ translation_ce + translation_cg) - translation_eg
    matrix = np.zeros((*in_ego.shape[:2], 4, 4))
    matrix[..., :3, :3] = to_lidar @ rotation_cg @ rotation_ce
    in_ego = np.swapaxes(rotation_eg, -1, -2) @ in_ego
    matrix[..., :3, 3:] = np.swapaxes(rotation_le, -1, -2) @ (in_ego - translation_le)
    matrix[..., 3, 3] = 1
    return matrix


def _rotation_translation(poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 7) -> (..., 3, 3) and (..., 3, 1)."""
    rotation = rotation_of(poses[..., 3:].reshape(-1, 4)).as_matrix()  # scipy takes one axis more
    return rotation.reshape(*poses.shape[:-1], 3, 3), poses[..., :3, None]


def _lidar_boxes(
    annotations: Annotations,
    timestamp_us: np.ndarray,
    lidar_to_ego: np.ndarray,
    ego_to_global: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(A, 9) float64 boxes in the lidar frame of their sample, in table order, and their (A, 4)
    rotation (w, x, y, z), which has the tilt that the yaw leaves out."""
    if len(annotations) == 0:  # an empty stack of rotations is not for every scipy
        return np.zeros((0, 9)), np.zeros((0, 4))
    frame = annotations.frame
    rotation_le, rotation_eg = rotation_of(lidar_to_ego[:, 3:]), rotation_of(ego_to_global[:, 3:])
    le_inverse, eg_inverse = rotation_le.inv()[frame], rotation_eg.inv()[frame]  # (S,) -> (A,)
    center = eg_inverse.apply(annotations.center - ego_to_global[frame, :3])
    center = le_inverse.apply(center - lidar_to_ego[frame, :3])
    x, y, z, w = (le_inverse * eg_inverse * rotation_of(annotations.rotation)).as_quat().T
    # Source: yaw of pyquaternion's yaw_pitch_roll, which the reference's records use. It is not the
    # heading of the rotated x axis; the two differ at second order in the tilt.
    yaw = np.arctan2(2 * (w * z - x * y), 1 - 2 * (y**2 + z**2))
    velocity = np.zeros((len(frame), 3))
    velocity[:, :2] = _global_velocity(annotations, timestamp_us)
    velocity = le_inverse.apply(eg_inverse.apply(velocity))
    size_lwh = annotations.size_wlh[:, [1, 0, 2]]  # nuScenes has the width first
    boxes = np.concatenate((center, size_lwh, yaw[:, None], velocity[:, :2]), axis=1)
    return boxes, np.stack((w, x, y, z), axis=1)


def _global_velocity(annotations: Annotations, timestamp_us: np.ndarray) -> np.ndarray:
    """(A, 2) float64: differences between the neighbours in time; NaN where undefined."""
    here = np.arange(len(annotations))
    has_previous, has_following = annotations.previous >= 0, annotations.following >= 0
    first = np.where(has_previous, annotations.previous, here)
    last = np.where(has_following, annotations.following, here)
    times = timestamp_us[annotations.frame]
    seconds = 1e-6 * (times[last] - times[first])
    # Source: the devkit's `box_velocity`.
    allowed = np.where(has_previous & has_following, 3.0, 1.5)
    defined = (has_previous | has_following) & (seconds <= allowed)
    velocity = np.full((len(annotations), 2), np.nan)
    # Of a box without a neighbour on one side, the other end is the box itself.
    moved = annotations.center[last, :2] - annotations.center[first, :2]
    velocity[defined] = moved[defined] / seconds[defined, None]
    return velocity


def _bytes(texts: Sequence[str] | np.ndarray) -> np.ndarray:
    """Fixed-width UTF-8 byte strings."""
    array = np.asarray(texts, dtype=object)
    return np.array([text.encode() for text in array.ravel()]).reshape(array.shape)


def _cache_path(root: Path, name: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Where the cache file is, or where it can be written."""
    if cache_dir is not None:
        folder = Path(cache_dir).expanduser()
        _make_folder(folder)
        return folder / name
    folder = root / ".streampetr_vit"
    with suppress(OSError):  # a root that cannot be written may have been prepared before
        folder.mkdir(exist_ok=True)
    if (folder / name).is_file() or (folder.is_dir() and os.access(folder, os.W_OK)):
        return folder / name
    user = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "streampetr_vit"
    _make_folder(user)
    _LOG.warning("%s cannot be written; the record cache goes to %s", folder, user)
    return user / name


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the record cache cannot be written into {str(folder)!r} ({error.strerror}); name a "
            "folder that can be written as the data set's cache_dir"
        ) from error


def _open_cache(path: Path, root: Path, spec: DatasetSpec, key: str) -> FrameRecords | None:
    """The cached records, or None (with a log line) if the file is absent or unusable."""
    if not path.is_file():
        _LOG.info("no record cache %s yet", path)
        return None
    try:
        records = FrameRecords(path, root, spec)
        if records.metadata.get("key") != key:
            raise CacheError("it was made from other tables")
    except CacheError as error:
        _LOG.warning("record cache %s: %s; it is built again", path, error)
        return None
    return records
