"""Joins the nuScenes tables into arrays: samples, sensor records, annotations.

Only the columns that a detector needs are kept, and of the sensor records only key frames of the
channels that a `DatasetSpec` names. Rows are the samples in the order of the frames (scenes by
their first timestamp, then time).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streampetr_vit.data.nuscenes.tables import (
    Row,
    TableError,
    TableFolder,
    column,
    index_by_token,
    lookup,
    numbers,
    quaternions,
)
from streampetr_vit.structures import DatasetSpec


@dataclass(frozen=True)
class Samples:
    """Samples in frame order. S samples, C scenes.

    Attributes:
        tokens: S sample tokens.
        timestamp_us: (S,) int64.
        scene_of_frame: (S,) int32, row of the scene.
        scene_tokens, scene_names: C names, in the order of the frames.
        scene_offsets: (C + 1,) int64, first frame of each scene and the total.
    """

    tokens: list[str]
    timestamp_us: np.ndarray
    scene_of_frame: np.ndarray
    scene_tokens: list[str]
    scene_names: list[str]
    scene_offsets: np.ndarray


@dataclass(frozen=True)
class SensorData:
    """Key-frame sensor records by sample and channel: the reference, then N cameras. K = 1 + N.

    The reference is the lidar, or the frame that stands for it where there is none.

    Attributes:
        paths: S x K file names, relative to the data root; "" of a reference that is no sensor.
        timestamp_us: (S, K) int64.
        image_size: (S, K, 2) int32, (width, height); zero for the reference.
        sensor_to_ego, ego_to_global: (S, K, 7) float64, translation then quaternion (w, x, y, z);
            the ego pose is that of the record's own time.
        intrinsics: (S, K, 3, 3) float64; zero for the reference.
    """

    paths: np.ndarray
    timestamp_us: np.ndarray
    image_size: np.ndarray
    sensor_to_ego: np.ndarray
    ego_to_global: np.ndarray
    intrinsics: np.ndarray


@dataclass(frozen=True)
class Annotations:
    """Boxes in table order. A annotations; everything in the global frame.

    Attributes:
        frame: (A,) int64, row of the sample.
        center, size_wlh, rotation: (A, 3), (A, 3), (A, 4) float64.
        previous, following: (A,) int64, rows of the same object's neighbours in time, or -1.
        category: (A,) int32, index into `category_names`.
        category_names: of the table.
        instance, num_lidar_pts, num_radar_pts: (A,) int32.
    """

    frame: np.ndarray
    center: np.ndarray
    size_wlh: np.ndarray
    rotation: np.ndarray
    previous: np.ndarray
    following: np.ndarray
    category: np.ndarray
    category_names: list[str]
    instance: np.ndarray
    num_lidar_pts: np.ndarray
    num_radar_pts: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)


def read_samples(tables: TableFolder) -> Samples:
    """Reads `scene` and `sample`, orders the samples, and checks their times.

    Raises:
        TableError: if times do not rise along a scene.
    """
    path = tables.path("sample")
    scenes, samples = tables.rows("scene"), tables.rows("sample")
    scene_tokens = column(scenes, "token", tables.path("scene"))
    scene_names = column(scenes, "name", tables.path("scene"))
    tokens = column(samples, "token", path)
    times = numbers(samples, "timestamp", path).astype(np.int64)
    scene = lookup(
        index_by_token(scene_tokens, tables.path("scene")),
        column(samples, "scene_token", path),
        "scene_token",
        path,
        "scene",
    )
    _check_chain(column(samples, "next", path), tokens, times, path)

    first_time = np.full(len(scenes), np.iinfo(np.int64).max)
    np.minimum.at(first_time, scene, times)
    scene_order = np.lexsort((np.arange(len(scenes)), first_time))
    scene_order = scene_order[np.isin(scene_order, scene)]  # scenes without samples are dropped
    rank = np.full(len(scenes), -1)
    rank[scene_order] = np.arange(len(scene_order))
    order = np.lexsort((times, rank[scene]))
    scene_of_frame, times = rank[scene][order], times[order]
    same_time = (np.diff(times) <= 0) & (np.diff(scene_of_frame) == 0)
    if same_time.any():
        token = tokens[order[int(same_time.argmax()) + 1]]
        raise TableError(f"{path}: sample {token!r} has the timestamp of another of its scene")
    return Samples(
        tokens=[tokens[row] for row in order],
        timestamp_us=times,
        scene_of_frame=scene_of_frame.astype(np.int32),
        scene_tokens=[scene_tokens[row] for row in scene_order],
        scene_names=[scene_names[row] for row in scene_order],
        scene_offsets=np.searchsorted(scene_of_frame, np.arange(len(scene_order) + 1)),
    )


def _check_chain(
    following: Sequence[str], tokens: Sequence[str], times: np.ndarray, path: Path
) -> None:
    """The chain of `next` tokens must go forward in time."""
    index = index_by_token(tokens, path)
    here = np.array([row for row, token in enumerate(following) if token], dtype=np.int64)
    there = lookup(index, [following[row] for row in here], "next", path, "sample")
    backwards = times[there] <= times[here]
    if backwards.any():
        worst = int(backwards.argmax())
        a, b = int(here[worst]), int(there[worst])
        raise TableError(
            f"{path}: timestamps out of order: sample {tokens[a]!r} at {times[a]} us is followed "
            f"by {tokens[b]!r} at {times[b]} us; `next` must lead to a later sample. Correct the "
            "timestamps or the chain"
        )


def read_sensor_data(tables: TableFolder, samples: Samples, spec: DatasetSpec) -> SensorData:
    """Reads `sensor`, `calibrated_sensor`, `sample_data` and `ego_pose`.

    Raises:
        TableError: if a sample lacks one of the channels.
    """
    channels = spec.cameras if spec.lidar is None else (spec.lidar, *spec.cameras)
    count, width = len(samples.tokens), len(channels)
    calibrations = tables.rows("calibrated_sensor")
    channel_of = _channel_of_calibration(tables, calibrations, channels)
    calibration_rows = {row["token"]: number for number, row in enumerate(calibrations)}
    frame_of = {token: row for row, token in enumerate(samples.tokens)}

    paths = np.full((count, width), "", dtype=object)
    times = np.zeros((count, width), np.int64)
    sizes = np.zeros((count, width, 2), np.int32)
    calibration = np.zeros((count, width), np.int64)
    pose_tokens = np.full((count, width), "", dtype=object)
    key_frames = 0
    file = tables.path("sample_data")
    for piece in tables.pieces("sample_data"):
        sensors = column(piece, "calibrated_sensor_token", file)
        keys = column(piece, "is_key_frame", file)
        try:
            kept = [
                row
                for row, is_key, token in zip(piece, keys, sensors, strict=True)
                if is_key and channel_of[token] >= 0
            ]
        except KeyError as error:
            raise TableError(
                f"{file}: calibrated_sensor_token {error.args[0]!r} is not in the table "
                "calibrated_sensor; the tables do not belong together"
            ) from None
        key_frames += len(kept)
        tokens = column(kept, "calibrated_sensor_token", file)
        sample_tokens = column(kept, "sample_token", file)
        slot = np.array([channel_of[token] for token in tokens], dtype=np.int64)
        frame = lookup(frame_of, sample_tokens, "sample_token", file, "sample")
        paths[frame, slot] = column(kept, "filename", file)
        times[frame, slot] = numbers(kept, "timestamp", file)
        sizes[frame, slot, 0] = numbers(kept, "width", file)
        sizes[frame, slot, 1] = numbers(kept, "height", file)
        calibration[frame, slot] = [calibration_rows[token] for token in tokens]
        pose_tokens[frame, slot] = column(kept, "ego_pose_token", file)
    _check_complete(paths, sizes, samples, file, channels, spec)
    if key_frames != paths.size:
        raise TableError(
            f"{file}: {key_frames} key frames of {', '.join(channels)} for {paths.size} places; "
            "some sample has two of one channel. Mark one of them as no key frame"
        )
    poses, intrinsics = _calibration_arrays(tables, calibrations, channel_of, spec)
    sensors = SensorData(
        paths=paths,
        timestamp_us=times,
        image_size=sizes,
        sensor_to_ego=poses[calibration],
        ego_to_global=_read_poses(tables, pose_tokens),
        intrinsics=intrinsics[calibration],
    )
    return sensors if spec.lidar else _with_reference(sensors, samples.timestamp_us, spec)


def _with_reference(cameras: SensorData, timestamp_us: np.ndarray, spec: DatasetSpec) -> SensorData:
    """Puts the stated frame in the place of a lidar, with the vehicle's pose at the sample's time.

    That pose is the one of the camera whose record is nearest in time.
    """
    nearest = np.abs(cameras.timestamp_us - timestamp_us[:, None]).argmin(axis=1)
    pose = np.take_along_axis(cameras.ego_to_global, nearest[:, None, None], axis=1)  # (S, 1, 7)
    stated = np.broadcast_to(np.array(spec.lidar_to_ego), pose.shape)

    def first(reference: np.ndarray, of_cameras: np.ndarray) -> np.ndarray:
        return np.concatenate((reference, of_cameras), axis=1)  # (S, 1, ...), (S, N, ...)

    return SensorData(
        paths=first(np.full_like(cameras.paths[:, :1], ""), cameras.paths),
        timestamp_us=first(timestamp_us[:, None], cameras.timestamp_us),
        image_size=first(np.zeros_like(cameras.image_size[:, :1]), cameras.image_size),
        sensor_to_ego=first(stated, cameras.sensor_to_ego),
        ego_to_global=first(pose, cameras.ego_to_global),
        intrinsics=first(np.zeros_like(cameras.intrinsics[:, :1]), cameras.intrinsics),
    )


def _channel_of_calibration(
    tables: TableFolder, calibrations: list[Row], channels: Sequence[str]
) -> dict[str, int]:
    """Index into the channels by calibrated_sensor token; -1 for sensors that are not used."""
    sensors, path = tables.rows("sensor"), tables.path("sensor")
    names = dict(zip(column(sensors, "token", path), column(sensors, "channel", path), strict=True))
    absent = [channel for channel in channels if channel not in names.values()]
    if absent:
        raise TableError(
            f"{path} has no {', '.join(absent)}; it has {', '.join(sorted(set(names.values())))}. "
            "Name the cameras of this data set in dataset_spec.cameras, and its lidar, or null, in "
            "dataset_spec.lidar"
        )
    path = tables.path("calibrated_sensor")
    slots = {name: slot for slot, name in enumerate(channels)}
    channel_of = {}
    tokens = column(calibrations, "token", path)
    for token, sensor in zip(tokens, column(calibrations, "sensor_token", path), strict=True):
        if sensor not in names:
            raise TableError(f"{path}: sensor_token {sensor!r} is not in the table sensor")
        channel_of[token] = slots.get(names[sensor], -1)
    return channel_of


def _calibration_arrays(
    tables: TableFolder, calibrations: list[Row], channel_of: dict[str, int], spec: DatasetSpec
) -> tuple[np.ndarray, np.ndarray]:
    """(R, 7) sensor-to-ego poses and (R, 3, 3) intrinsics of all calibration records."""
    path = tables.path("calibrated_sensor")
    poses = np.concatenate(
        (
            numbers(calibrations, "translation", path, (3,)),
            quaternions(calibrations, "rotation", path),
        ),
        axis=1,
    )
    intrinsics = np.zeros((len(calibrations), 3, 3))
    first = 0 if spec.lidar is None else 1
    cameras = [n for n, row in enumerate(calibrations) if channel_of[row["token"]] >= first]
    rows = [calibrations[n] for n in cameras]
    intrinsics[cameras] = numbers(rows, "camera_intrinsic", path, (3, 3))
    return poses, intrinsics


def _check_complete(
    paths: np.ndarray,
    sizes: np.ndarray,
    samples: Samples,
    file: Path,
    channels: Sequence[str],
    spec: DatasetSpec,
) -> None:
    """Every sample has a key frame of every channel, and every camera a picture size."""
    missing = paths == ""
    if missing.any():
        frame, slot = np.argwhere(missing)[0]
        raise TableError(
            f"{file}: sample {samples.tokens[frame]!r} (scene "
            f"{samples.scene_names[samples.scene_of_frame[frame]]}) has no key frame of "
            f"{channels[slot]}; {int(missing.sum())} are missing in all. Every sample needs "
            f"{', '.join(channels)}"
        )
    first = 0 if spec.lidar is None else 1
    bad = (sizes[:, first:] <= 0).any(axis=-1)
    if bad.any():
        frame, slot = np.argwhere(bad)[0]
        raise TableError(
            f"{file}: {paths[frame, slot + first]!r} of sample {samples.tokens[frame]!r} has width "
            f"and height {sizes[frame, slot + first].tolist()}; they must be the picture's size in "
            "pixels"
        )


def _read_poses(tables: TableFolder, tokens: np.ndarray) -> np.ndarray:
    """Ego poses of sensor records: (S, K) tokens -> (S, K, 7) float64."""
    path = tables.path("ego_pose")
    unique, inverse = np.unique(tokens.ravel().astype(str), return_inverse=True)
    wanted = {token: row for row, token in enumerate(unique.tolist())}
    poses = np.full((len(unique), 7), np.nan)
    for piece in tables.pieces("ego_pose"):
        names = column(piece, "token", path)
        kept = [row for row, name in zip(piece, names, strict=True) if name in wanted]
        rows = [wanted[row["token"]] for row in kept]
        poses[rows, :3] = numbers(kept, "translation", path, (3,))
        poses[rows, 3:] = quaternions(kept, "rotation", path)
    missing = np.isnan(poses[:, 0])
    if missing.any():
        raise TableError(
            f"{path}: {int(missing.sum())} ego poses that sample_data names are missing, the first "
            f"is {unique[int(missing.argmax())]!r}; the tables do not belong together"
        )
    return poses[inverse].reshape(*tokens.shape, 7)


def read_annotations(tables: TableFolder, samples: Samples) -> Annotations:
    """Reads `category`, `instance` and `sample_annotation`; empty for a set without ground truth.

    Raises:
        FileNotFoundError: if the annotations are missing and the version is not a test set.
    """
    parts: list[dict[str, np.ndarray]] = []
    names: dict[str, list[str]] = {"token": [], "prev": [], "next": []}
    path = tables.path("sample_annotation")
    if not path.is_file() and tables.folder.name.endswith("test"):
        return _annotations({}, [], names, path)
    frame_of = {token: row for row, token in enumerate(samples.tokens)}
    instance_of, category_of_instance, category_names = _read_instances(tables)
    for piece in tables.pieces("sample_annotation"):
        if not piece:
            continue
        instance = lookup(
            instance_of, column(piece, "instance_token", path), "instance_token", path, "instance"
        )
        part = {
            "frame": lookup(
                frame_of, column(piece, "sample_token", path), "sample_token", path, "sample"
            ),
            "center": numbers(piece, "translation", path, (3,)),
            "size_wlh": numbers(piece, "size", path, (3,)),
            "rotation": quaternions(piece, "rotation", path),
            "category": category_of_instance[instance],
            "instance": instance.astype(np.int32),
            "num_lidar_pts": numbers(piece, "num_lidar_pts", path).astype(np.int32),
            "num_radar_pts": numbers(piece, "num_radar_pts", path).astype(np.int32),
        }
        for field, values in names.items():
            values.extend(column(piece, field, path))
        flat = (part["size_wlh"] <= 0).any(axis=1)
        if flat.any():
            raise TableError(
                f"{path}: size of record {piece[int(flat.argmax())]['token']!r} is "
                f"{part['size_wlh'][int(flat.argmax())].tolist()}; (w, l, h) must be positive"
            )
        parts.append(part)
    joined = (
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else {}
    )
    return _annotations(joined, category_names, names, path)


def _annotations(
    joined: dict[str, np.ndarray],
    category_names: list[str],
    names: dict[str, list[str]],
    path: Path,
) -> Annotations:
    index = index_by_token(names["token"], path)
    index[""] = -1  # the ends of a track
    neighbours = {
        "previous": lookup(index, names["prev"], "prev", path, "sample_annotation"),
        "following": lookup(index, names["next"], "next", path, "sample_annotation"),
    }
    if not joined:
        whole = dict.fromkeys(("category", "instance", "num_lidar_pts", "num_radar_pts"))
        joined = {key: np.zeros(0, np.int32) for key in whole}
        joined.update(center=np.zeros((0, 3)), size_wlh=np.zeros((0, 3)), rotation=np.zeros((0, 4)))
        joined["frame"] = np.zeros(0, np.int64)
    return Annotations(**joined, **neighbours, category_names=category_names)


def _read_instances(tables: TableFolder) -> tuple[dict[str, int], np.ndarray, list[str]]:
    """Row by instance token, the category of each instance, and the names of the categories."""
    path = tables.path("category")
    categories = tables.rows("category")
    rows = index_by_token(column(categories, "token", path), path)
    names = column(categories, "name", path)
    path = tables.path("instance")
    instances = tables.rows("instance")
    category = lookup(
        rows, column(instances, "category_token", path), "category_token", path, "category"
    )
    return index_by_token(column(instances, "token", path), path), category.astype(np.int32), names
