"""Tells a sample that cannot be what its fields promise, before a network makes boxes of it.

Shape letters: N cameras, H W image height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.structures.rigid import ROTATION_TOLERANCE as _CLOSE
from streampetr_vit.structures.sample import Sample

_CAMERA_MATRICES = ("intrinsics", "lidar_to_camera", "lidar_to_image")
_POSES = ("lidar_to_global", "global_to_lidar")
_TENSORS = ("images", *_CAMERA_MATRICES, *_POSES, "timestamp_s", "continues_stream")

# The memory of a stream is of the last seconds. Twenty frames a second, with times in
# milliseconds, would be 50 "seconds" apart.
LONGEST_GAP_S = 30
FARTHEST_SENSOR_M = 100.0  # from the vehicle's origin, or from its lidar; no car is longer

_LAST_ROW = (0.0, 0.0, 0.0, 1.0)
_FARTHEST_FLOAT32_M = 1e5  # there float32 is rounded to 8 mm
LATEST_S = 1e11  # in the year 5138; milliseconds since the epoch are later
_LEAST_FOCAL = 0.02  # of the picture's side: it would see 177 degrees
_FROM_4X4 = "put it into the upper left of torch.eye(4)"


def check_batch(samples: Sequence[Sample | Mapping[str, Any]]) -> list[Sample]:
    """Checks the samples of one moment, one for each stream, and that they go together.

    Args:
        samples: or dicts of their values.

    Raises:
        InputError: as `check_sample`; or there is none, or their pictures differ in shape.
    """
    if isinstance(samples, (Sample, Mapping)):
        raise InputError("give a list of samples, one for each stream: stream([sample])")
    checked = [Sample.of(sample) for sample in samples]
    if not checked:
        raise InputError("a stream needs at least one sample in each call")
    for sample in checked:
        check_sample(sample)
    first = checked[0].images
    for sample in checked:
        if sample.images.shape != first.shape or sample.images.dtype != first.dtype:
            raise InputError(
                f"sample {_name(sample)} has images {_kind(sample.images)}, sample "
                f"{_name(checked[0])} has {_kind(first)}: make the pictures alike, or play each "
                "rig in a Stream of its own"
            )
    return checked


def check_sample(sample: Sample, random_crop: bool = False) -> None:
    """Checks what can be told of a sample by itself; well under a millisecond.

    Args:
        random_crop: training may cut off a picture's middle, where the optical axis meets it.

    Raises:
        InputError: names the sample, the field, the value and the fix.
    """
    for check in _CHECKS if random_crop else (*_CHECKS, _principal_points):
        problem = check(sample)
        if problem is not None:
            raise InputError(f"sample {_name(sample)}: {problem}")


# Each check relies on those before it, and gives the problem, or None.


def _types(sample: Sample) -> str | None:
    for name in _TENSORS:
        value = getattr(sample, name)
        if not isinstance(value, Tensor):
            return f"{name} is a {type(value).__name__}: make a torch.Tensor of it"
        if name == "images" and value.is_meta:
            return f"{name} is on the meta device, without data: give a tensor with numbers"
        if name != "images" and value.device.type != "cpu":
            return f"{name} is on {value.device}: leave samples on the CPU, the stream moves them"
    if sample.continues_stream.shape != () or sample.continues_stream.dtype != torch.bool:
        return f"continues_stream is {_kind(sample.continues_stream)}: give torch.tensor(True)"
    return None


def _images(sample: Sample) -> str | None:
    images = sample.images
    if images.dim() != 4 or images.shape[1] != 3:
        fix = "give (cameras, 3, height, width)"
        if images.dim() == 4 and images.shape[-1] == 3:
            fix += ": images.permute(0, 3, 1, 2)"
        return f"images has the shape {tuple(images.shape)}: {fix}"
    if images.dtype == torch.uint8:
        return None
    if images.dtype != torch.float32:
        return f"images is {images.dtype}: give uint8 RGB, or float32 that is already normalised"
    if images.device.type != "cpu":  # to look at values would wait for the device
        return None
    some = images[:, :, ::16, ::16]  # all pixels would take longer than the other checks together
    low, high = float(some.min()), float(some.max())
    normal = -20 < low <= high < 20  # False for NaN; 8-bit pictures reach about 3
    if not normal or (0 <= low < high <= 1):
        return (
            f"images is float32 with values from {low:.3g} to {high:.3g}, which is not "
            "(RGB - pixel_mean) / pixel_std: give uint8 RGB, which the detector normalises"
        )
    return None


def _shapes(sample: Sample) -> str | None:
    cameras = len(sample.images)
    for name in (*_CAMERA_MATRICES, *_POSES):
        value = getattr(sample, name)
        wanted = (cameras, 4, 4) if name in _CAMERA_MATRICES else (4, 4)
        if tuple(value.shape) == wanted and value.dtype in (torch.float32, torch.float64):
            continue
        fix = f"give {wanted} of float32 or float64"
        if value.shape[-2:] == (3, 3):
            fix += f"; a 3x3 matrix: {_FROM_4X4}"
        elif value.shape[-2:] == (3, 4):
            fix += "; a 3x4 matrix: add the row 0 0 0 1"
        elif value.dim() == 3 and len(value) != cameras:
            fix += f", as images has {cameras} cameras"
        return f"{name} is {_kind(value)}: {fix}"
    return None


def _last_rows(sample: Sample) -> str | None:
    matrices = [getattr(sample, name).numpy() for name in (*_CAMERA_MATRICES, *_POSES)]
    every = np.concatenate([matrix.reshape(-1, 4, 4) for matrix in matrices])  # (3 N + 2, 4, 4)
    # One look at all of them; who is wrong is searched only if one is. NaN is not close to zero.
    if np.isfinite(every).all() and (np.abs(every[:, 3] - _LAST_ROW) < 1e-5).all():
        return None
    for name, matrix in zip((*_CAMERA_MATRICES, *_POSES), matrices, strict=True):
        if not np.isfinite(matrix).all():
            return f"{name} has entries that are NaN or infinite: leave this frame out"
        rows = matrix.reshape(-1, 4, 4)[:, 3]
        wrong = (np.abs(rows - _LAST_ROW) > 1e-5).any(axis=1)
        if wrong.any():
            return (
                f"{name} has the last row {_numbers(rows[wrong][0])}, not 0 0 0 1: matrices map "
                "column vectors (transpose it if it is one for rows)"
            )
    return None


def _poses(sample: Sample) -> str | None:
    pose, inverse = (getattr(sample, name).double().numpy() for name in _POSES)
    for name, matrix in zip(_POSES, (pose, inverse), strict=True):
        scale = _scale_of_rotation(matrix[:3, :3])
        if scale is None or not 0.5 < scale < 2:  # scene augmentation scales by a few percent
            return (
                f"{name} is no rigid pose (upper left {_numbers(matrix[:3, :3].ravel())}): give a "
                "rotation, and the translation in metres"
            )
        far = float(np.abs(matrix[:3, 3]).max())
        if far > _FARTHEST_FLOAT32_M and getattr(sample, name).dtype == torch.float32:
            step = float(np.spacing(np.float32(far)))
            return (
                f"{name} is float32 and {far:.0f} m from the origin, where float32 knows places to "
                f"{step:.2g} m: give float64"
            )
    rest = pose @ inverse - np.eye(4)
    far = float(np.abs(np.stack((pose, inverse))[:, :3, 3]).max())
    if np.abs(rest[:3, :3]).max() > _CLOSE or np.abs(rest[:3, 3]).max() > 0.02 + 1e-6 * far:
        return "global_to_lidar is not the inverse of lidar_to_global: give torch.linalg.inv of it"
    return None


def _cameras(sample: Sample) -> str | None:
    to_camera = sample.lidar_to_camera.double().numpy()
    turns = to_camera[:, :3, :3]
    rest = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    wrong = (rest > _CLOSE) | (np.linalg.det(turns) < 0)
    if wrong.any():
        camera = int(wrong.argmax())
        return (
            f"lidar_to_camera of camera {camera} has the upper left "
            f"{_numbers(turns[camera].ravel())}, which is no rotation: leave out scale and "
            "intrinsics"
        )
    distance = np.linalg.norm(to_camera[:, :3, 3], axis=1)
    if distance.max() > FARTHEST_SENSOR_M:
        camera = int(distance.argmax())
        return (
            f"lidar_to_camera of camera {camera} has a translation of {distance[camera]:.0f} m: "
            "give the camera on the car, in metres, without the car's place on the map"
        )
    return None


def _focal_lengths(sample: Sample) -> str | None:
    height, width = sample.images.shape[-2:]
    for camera, matrix in enumerate(sample.intrinsics.tolist()):
        (fx, *_), (_, fy, *_), third, _ = matrix
        if max(abs(a - b) for a, b in zip(third, (0.0, 0.0, 1.0, 0.0), strict=True)) > 1e-5:
            return (
                f"intrinsics of camera {camera} has the third row {_numbers(third)}, not 0 0 1 0: "
                f"give the camera matrix fx 0 cx, 0 fy cy, 0 0 1; {_FROM_4X4}"
            )
        if abs(fx) < _LEAST_FOCAL * width or abs(fy) < _LEAST_FOCAL * height:
            return (
                f"intrinsics of camera {camera} has the focal lengths {fx:g} and {fy:g} for a "
                f"picture of {width} x {height}: give pixels of the picture that is given"
            )
    return None


def _principal_points(sample: Sample) -> str | None:
    height, width = sample.images.shape[-2:]
    for camera, (cx, cy) in enumerate(sample.intrinsics[:, :2, 2].tolist()):
        # Cutting off the sky may take the axis with it; a wrong size never does so.
        if cx >= width or cy >= height or cx < 0:
            return (
                f"intrinsics of camera {camera} has the principal point ({cx:g}, {cy:g}) outside "
                f"of its picture of {width} x {height}: give intrinsics and lidar_to_image for "
                "the resized and cropped picture"
            )
    return None


def _projections(sample: Sample) -> str | None:
    made = sample.intrinsics.double().numpy() @ sample.lidar_to_camera.double().numpy()
    given = sample.lidar_to_image.double().numpy()
    largest = np.abs(made).max(axis=(1, 2), keepdims=True)
    wrong = (np.abs(given - made) > _CLOSE * largest).any(axis=(1, 2))
    if not wrong.any():
        return None
    # Scene augmentation turns, scales and moves the lidar frame, for all cameras alike.
    moves = np.linalg.inv(made) @ given  # (N, 4, 4)
    alike = np.abs(moves - moves[0]).max() < 1e-2
    scale = _scale_of_rotation(moves[0, :3, :3])
    upright = np.abs(moves[0, [0, 1, 2, 2], [2, 2, 0, 1]]).max() < _CLOSE and moves[0, 2, 2] > 0
    if alike and upright and scale is not None and 0.5 < scale < 2:
        return None
    return (
        f"lidar_to_image of camera {int(wrong.argmax())} is not intrinsics @ lidar_to_camera: give "
        "that product, with the intrinsics of the picture that is given, and lidar_to_camera as a "
        "map from lidar to camera (not its inverse)"
    )


def _time(sample: Sample) -> str | None:
    time = sample.timestamp_s
    if time.shape != () or time.dtype != torch.float64:
        why = "; float32 knows seconds since the epoch to 128 s" if time.dtype.itemsize == 4 else ""
        return f"timestamp_s is {_kind(time)}: give () of float64{why}"
    seconds = float(time)
    if abs(seconds) < LATEST_S:  # False for NaN
        return None
    units = ((1e17, "nano", "1e9"), (1e14, "micro", "1e6"), (LATEST_S, "milli", "1e3"))
    for least, unit, divisor in units:
        if least <= abs(seconds) < 1e20:
            return f"timestamp_s is {seconds:g}, as {unit}seconds are: divide it by {divisor}"
    return f"timestamp_s is {seconds}: give seconds since the epoch, or since any moment"


_CHECKS: tuple[Callable[[Sample], str | None], ...] = (
    _types,
    _images,
    _shapes,
    _last_rows,
    _poses,
    _cameras,
    _focal_lengths,
    _projections,
    _time,
)


def _scale_of_rotation(matrix: np.ndarray) -> float | None:
    """The factor s of a (3, 3) s R with a rotation R; None if it is none."""
    squares = matrix @ matrix.T  # s^2 of a rotation is on the diagonal, and zeros are beside it
    square = float(np.trace(squares)) / 3
    if square <= 0 or np.abs(squares / square - np.eye(3)).max() > _CLOSE:
        return None
    return square**0.5 if np.linalg.det(matrix) > 0 else None


def _name(sample: Sample) -> str:
    return sample.sample_token or "without sample_token"


def _kind(value: Tensor) -> str:
    return f"{tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"


def _numbers(values: object) -> str:
    return " ".join(f"{float(x):.4g}" for x in values)  # type: ignore[attr-defined]
