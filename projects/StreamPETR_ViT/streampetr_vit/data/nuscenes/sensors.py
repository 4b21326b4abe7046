"""Joins the tables of the sensors into arrays: pictures, times, calibration and poses.

Only key frames of the channels that a `DatasetSpec` names are kept. Shape letters: S samples in
the order of the frames, N cameras, K channels (the lidar, where there is one, then the cameras), R
calibration records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampetr_vit.data.nuscenes.columns import Samples
from streampetr_vit.data.nuscenes.picture_files import is_below_root
from streampetr_vit.data.nuscenes.tables import Rows, TableError, TableFolder
from streampetr_vit.structures import DatasetSpec
from streampetr_vit.structures.sample_checks import FARTHEST_SENSOR_M
from streampetr_vit.texts import name_list, shown

# Of a picture that the tables may promise: what decodes to more is no picture of a camera.
_MOST_PIXELS = 10**8
# Between a sample and its pictures; nuScenes has less than 0.1 s.
_LONGEST_DELAY_US = 60_000_000


@dataclass(frozen=True)
class SensorData:
    """Key-frame sensor records by sample and channel: the reference, then N cameras.

    The reference is the lidar, or the frame that stands for it where there is none. Poses are
    translation then quaternion (w, x, y, z).
    """

    paths: np.ndarray  # (S, 1 + N) below the data root; "" of a reference that is no sensor
    timestamp_us: np.ndarray  # (S, 1 + N) int64
    image_size: np.ndarray  # (S, 1 + N, 2) int32, (width, height); zero for the reference
    sensor_to_ego: np.ndarray  # (S, 1 + N, 7) float64
    ego_to_global: np.ndarray  # (S, 1 + N, 7) float64, at the record's own time
    intrinsics: np.ndarray  # (S, 1 + N, 3, 3) float64; zero for the reference


def read_sensor_data(tables: TableFolder, samples: Samples, spec: DatasetSpec) -> SensorData:
    """Reads `sensor`, `calibrated_sensor`, `sample_data` and `ego_pose`.

    Raises:
        TableError: if a channel is not in the tables, or a sample lacks one of them.
    """
    channels = spec.cameras if spec.lidar is None else (spec.lidar, *spec.cameras)
    calibrations = _read_calibrations(tables, channels, len(spec.cameras))
    found = _KeyFrames(samples, calibrations, channels)
    for piece in tables.pieces("sample_data"):
        found.add(piece)
    found.check(len(spec.cameras))
    _check_principal_points(tables, found, calibrations, spec)
    sensors = SensorData(
        paths=found.paths,
        timestamp_us=found.timestamp_us,
        image_size=found.image_size,
        sensor_to_ego=calibrations.sensor_to_ego[found.calibration],  # (R, 7) -> (S, K, 7)
        ego_to_global=_read_poses(tables, found.pose_tokens),
        intrinsics=calibrations.intrinsics[found.calibration],  # (R, 3, 3) -> (S, K, 3, 3)
    )
    return sensors if spec.lidar else _with_reference(sensors, samples.timestamp_us, spec)


@dataclass(frozen=True)
class _Calibrations:
    """The table `calibrated_sensor`."""

    row_of_token: dict[str, int]
    slot: np.ndarray  # (R,) int64, index into the channels; -1 for sensors that are not used
    sensor_to_ego: np.ndarray  # (R, 7) float64
    intrinsics: np.ndarray  # (R, 3, 3) float64; zero for what is no camera of the spec


def _read_calibrations(
    tables: TableFolder, channels: Sequence[str], num_cameras: int
) -> _Calibrations:
    sensors, records = tables.rows("sensor"), tables.rows("calibrated_sensor")
    names = sensors.texts("channel")
    absent = [channel for channel in channels if channel not in names]
    if absent:
        raise TableError(
            f"{sensors.path} has no {', '.join(absent)}; it has {name_list(sorted(set(names)))}. "
            "Name the cameras of this data set in dataset_spec.cameras, and its lidar, or null, in "
            "dataset_spec.lidar"
        )
    slots = {name: slot for slot, name in enumerate(channels)}
    slot_of_sensor = np.array([slots.get(name, -1) for name in names], dtype=np.int64)
    slot = slot_of_sensor[records.references("sensor_token", sensors.index(), "sensor")]
    # The cameras are the last channels. Of other sensors the table may hold anything.
    is_camera = slot >= len(channels) - num_cameras
    intrinsics = np.zeros((len(records), 3, 3))
    intrinsics[is_camera] = _intrinsics(records.where(is_camera))
    poses = records.poses()
    far = (slot >= 0) & (np.abs(poses[:, :3]) > FARTHEST_SENSOR_M).any(axis=1)
    rule = f"it must be metres from the vehicle's origin, at most {FARTHEST_SENSOR_M:g}"
    records.refuse(far, "translation", rule)
    return _Calibrations(records.index(), slot, poses, intrinsics)


def _intrinsics(records: Rows) -> np.ndarray:
    """(len(records), 3, 3) float64 of a pinhole camera, in pixels."""
    matrices = records.numbers("camera_intrinsic", (3, 3))
    rows_below = (matrices[:, 2] != (0, 0, 1)).any(axis=1) | (matrices[:, 1, 0] != 0)
    focal = matrices[:, [0, 1], [0, 1]]
    wrong = rows_below | ~((focal > 0) & (np.abs(focal) < 1e7)).all(axis=1)
    rule = "it must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels, with fx and fy above 0"
    records.refuse(wrong, "camera_intrinsic", rule)
    return matrices


def _check_principal_points(
    tables: TableFolder, found: _KeyFrames, calibrations: _Calibrations, spec: DatasetSpec
) -> None:
    """The optical axis of a camera meets its picture, or the matrix is of another picture size."""
    cameras = len(spec.cameras)
    rows, sizes = found.calibration[:, -cameras:], found.image_size[:, -cameras:]  # (S, N[, 2])
    points = calibrations.intrinsics[rows][..., :2, 2]  # (R, 3, 3) -> (S, N, 2)
    outside = ((points < 0) | (points >= sizes)).any(axis=-1)
    if outside.any():
        place = tuple(np.argwhere(outside)[0])
        token = list(calibrations.row_of_token)[rows[place]]
        width, height = sizes[place].tolist()
        raise TableError(
            f"{tables.path('calibrated_sensor')}: field 'camera_intrinsic' of record "
            f"{shown(token)} ({spec.cameras[place[1]]}) has its principal point (cx, cy) at "
            f"{points[place].round(1).tolist()}, outside its pictures of {width}x{height} (width "
            "and height in sample_data): it belongs to another picture size. Scale fx, s, cx by "
            "the ratio of the widths and fy, cy by that of the heights"
        )


class _KeyFrames:
    """What `sample_data` says of each sample and channel, filled in piece by piece."""

    def __init__(self, samples: Samples, calibrations: _Calibrations, channels: Sequence[str]):
        shape = (len(samples.tokens), len(channels))
        self._samples, self._calibrations, self._channels = samples, calibrations, channels
        self._frame_of_token = {token: row for row, token in enumerate(samples.tokens)}
        self._count = 0
        self.paths, self.pose_tokens = (np.full(shape, "", dtype=object) for _ in range(2))
        self.timestamp_us = np.zeros(shape, np.int64)
        self.calibration = np.zeros(shape, np.int64)  # rows of the calibration records
        self.image_size = np.zeros((*shape, 2), np.int32)  # (width, height)

    def add(self, piece: Rows) -> None:
        """Takes the key frames of the channels out of a piece of the table."""
        self._path = piece.path
        rows = self._calibrations.row_of_token
        calibration = piece.references("calibrated_sensor_token", rows, "calibrated_sensor")
        slot = self._calibrations.slot[calibration]
        wanted = piece.flags("is_key_frame") & (slot >= 0)
        kept = piece.where(wanted)
        self._count += len(kept)
        frame = kept.references("sample_token", self._frame_of_token, "sample")
        place = (frame, slot[wanted])
        self.paths[place] = _file_names(kept)
        self.pose_tokens[place] = kept.texts("ego_pose_token")
        self.timestamp_us[place] = self._times(kept, frame)
        self.calibration[place] = calibration[wanted]
        self.image_size[place] = np.stack((kept.counts("width"), kept.counts("height")), axis=1)

    def _times(self, kept: Rows, frame: np.ndarray) -> np.ndarray:
        times = kept.microseconds("timestamp")
        far = np.abs(times - self._samples.timestamp_us[frame]) > _LONGEST_DELAY_US
        rule = "more than a minute from that of its sample; both must be microseconds of one clock"
        kept.refuse(far, "timestamp", rule)
        return times

    def check(self, num_cameras: int) -> None:
        """Raises a TableError unless each place has one record, and each camera's a size."""
        missing = self.paths == ""
        if missing.any():
            frame, slot = np.argwhere(missing)[0]
            scene = self._samples.scene_names[self._samples.scene_of_frame[frame]]
            raise TableError(
                f"{self._path}: sample {self._samples.tokens[frame]!r} (scene {scene}) has no key "
                f"frame of {self._channels[slot]}; {int(missing.sum())} are missing in all. Every "
                f"sample needs {', '.join(self._channels)}"
            )
        if self._count != self.paths.size:
            raise TableError(
                f"{self._path}: {self._count} key frames of {', '.join(self._channels)} for "
                f"{self.paths.size} places; some sample has two of one channel. Mark one of them "
                "as no key frame"
            )
        bad = self.image_size.astype(np.int64).prod(axis=-1)
        bad = (bad <= 0) | (bad > _MOST_PIXELS)
        bad[:, :-num_cameras] = False  # a lidar has no picture
        if bad.any():
            frame, slot = np.argwhere(bad)[0]
            raise TableError(
                f"{self._path}: {self.paths[frame, slot]!r} of sample "
                f"{self._samples.tokens[frame]!r} has width and height "
                f"{self.image_size[frame, slot].tolist()}; they must be the picture's size in "
                f"pixels, of which it may have {_MOST_PIXELS:,}"
            )


def _file_names(kept: Rows) -> list[str]:
    names = kept.texts("filename")
    bad = np.array([not is_below_root(name) for name in names], dtype=bool)
    rule = (
        "it must be a path below the data root, such as samples/CAM_FRONT/1.jpg: with / between "
        "folders, without .., and no URL"
    )
    kept.refuse(bad, "filename", rule)
    return names


def _read_poses(tables: TableFolder, tokens: np.ndarray) -> np.ndarray:
    """Ego poses of sensor records: (S, K) tokens -> (S, K, 7) float64."""
    unique, inverse = np.unique(tokens.ravel().astype(str), return_inverse=True)
    wanted = {token: row for row, token in enumerate(unique.tolist())}
    poses = np.full((len(unique), 7), np.nan)
    for piece in tables.pieces("ego_pose"):
        kept = piece.where(token in wanted for token in piece.column("token"))
        poses[[wanted[row["token"]] for row in kept]] = kept.poses()
    missing = np.isnan(poses[:, 0])
    if missing.any():
        raise TableError(
            f"{tables.path('ego_pose')}: {int(missing.sum())} ego poses that sample_data names are "
            f"missing, the first is {unique[int(missing.argmax())]!r}; the tables do not belong "
            "together"
        )
    return poses[inverse].reshape(*tokens.shape, 7)  # (S * K, 7) -> (S, K, 7)


def _with_reference(cameras: SensorData, timestamp_us: np.ndarray, spec: DatasetSpec) -> SensorData:
    """Puts the stated frame in the place of a lidar, with the vehicle's pose at the sample's time.

    (S, N, ...) of the cameras and (S,) times of the samples -> (S, 1 + N, ...).
    """
    # The tables have poses for sensor records only: the one nearest in time stands for the sample.
    nearest = np.abs(cameras.timestamp_us - timestamp_us[:, None]).argmin(axis=1)
    pose = np.take_along_axis(cameras.ego_to_global, nearest[:, None, None], axis=1)  # (S, 1, 7)
    reference = {
        "paths": np.full_like(cameras.paths[:, :1], ""),
        "timestamp_us": timestamp_us[:, None],
        "image_size": np.zeros_like(cameras.image_size[:, :1]),
        "sensor_to_ego": np.broadcast_to(np.array(spec.lidar_to_ego), pose.shape),
        "ego_to_global": pose,
        "intrinsics": np.zeros_like(cameras.intrinsics[:, :1]),
    }
    # (S, 1, ...), (S, N, ...) -> (S, 1 + N, ...)
    return SensorData(
        **{k: np.concatenate((v, getattr(cameras, k)), axis=1) for k, v in reference.items()}
    )
